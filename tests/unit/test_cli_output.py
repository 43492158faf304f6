"""Data goes to stdout, as text or as one JSON document; everything else goes to stderr."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

from launcher.plan.document import plan_from_json
from launcher.recipe.load import load_recipe
from launcher.recipe.schema import json_schema
from launcher.records import attempts, complete, files, journal
from launcher.records.attempts import Attempt
from launcher.records.complete import Complete
from launcher.run import folder as run_folder
from tests.unit.command import LAUNCHER, ROOT, launcher
from tests.unit.running import ON_SLURM, ON_THIS_MACHINE


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of this machine: sft is complete, rm has failed, nothing runs."""
    home = tmp_path_factory.mktemp("home")
    run, _ = run_folder.create(home / "runs", ON_THIS_MACHINE, {"name": "chain"}, new=False)
    for stage in ("sft", "rm"):
        journal.append(run.journal, journal.Event("intent", 1.0, stage, stage))
        journal.append(run.journal, journal.Event("submitted", 1.0, stage, stage, "local-7"))
    sft = run.stage("sft")
    files.private_folder(sft.logs)
    (sft.logs / "7_0_log.out").write_text("one\ntwo\n")
    complete.write(sft, Complete("sft", "sft", "sft", 9.0, (), peak_bytes={"host": 2**30}))
    failure = attempts.Failure(0, "KeyError: 'text'", "Traceback …")
    attempts.start(
        run.stage("rm").attempts,
        Attempt(0, "rm", "local-7", "host", 1, 1.0, 2.0, "error", 1, failure),
    )
    return home


def test_a_plan_as_json_is_the_plan_and_its_scripts(tmp_path: Path) -> None:
    ended = launcher(
        "plan", "ppo_7b", "--cluster", "mixed", "--json", "--show-sbatch", "-o", "plan.json",
        folder=tmp_path,
    )  # fmt: skip
    data = ended.data("plan")
    assert set(data["sbatch"]) == {"sft", "rm", "ppo", "eval"}
    assert all(text.startswith("#!/bin/bash\n") for text in data["sbatch"].values())
    assert data["plan"] == json.loads((tmp_path / "plan.json").read_text())
    assert plan_from_json(json.dumps(data["plan"])).name == "ppo-7b"
    assert ended.err == "\nlauncher submit plan.json\n"


def test_a_stored_plan_is_what_the_recipe_was_planned_to_and_a_dry_run_writes_nothing(
    tmp_path: Path,
) -> None:
    planned = launcher("plan", "ppo_7b", "--cluster", "mixed", "-o", "plan.json", folder=tmp_path)
    dry = launcher("submit", "plan.json", "--dry-run", "--show-sbatch", folder=tmp_path)
    assert dry.out.startswith(planned.out)
    assert "\n# ---- eval\n#!/bin/bash\n" in dry.out
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_status_list_and_report_are_documents_of_one_run(home: Path) -> None:
    status = launcher("status", "--json", folder=home).data("status")
    assert status["state"] == "failed"
    assert [stage["state"] for stage in status["stages"]][:2] == ["complete", "failed"]
    assert status["stages"][1]["reason"] == "KeyError: 'text'"
    (listed,) = launcher("list", "--json", folder=home).data("runs")
    assert (listed["run"], listed["complete"], listed["stages"]) == (status["run"], 1, 4)
    report = launcher("report", "--json", folder=home).data("report")
    assert report["run"] == status["run"] and report["evaluations"] == {}


def test_reading_changes_nothing(home: Path) -> None:
    def everything() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in home.rglob("*")}

    before = everything()
    for words in (("status",), ("list",), ("report",), ("logs", "sft")):
        launcher(*words, folder=home)
    assert everything() == before


def test_logs_are_what_the_job_printed_and_nothing_else(home: Path) -> None:
    ended = launcher("logs", "chain", "sft", folder=home)
    assert (ended.out, ended.err) == ("one\ntwo\n", "")


def test_the_environment_names_runs_and_cluster_and_a_flag_goes_before_it(
    home: Path, tmp_path: Path
) -> None:
    env = {"LAUNCHER_RUNS": str(home / "runs"), "LAUNCHER_CLUSTER": "a100_40"}
    assert launcher("list", "--json", folder=tmp_path, env=env).data("runs")
    assert launcher("list", "--runs", "none", "--json", folder=tmp_path, env=env).data("runs") == []
    ended = launcher("plan", "sft_0.5b", folder=tmp_path, env=env)
    assert ended.out.startswith("sft-0.5b on a100_40 ")
    other = launcher("plan", "sft_0.5b", "--cluster", "mixed", folder=tmp_path, env=env)
    assert other.out.startswith("sft-0.5b on mixed ")


def test_a_recipe_is_printed_whole_and_reads_back_as_itself(tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(launcher("validate", "ppo_7b", folder=tmp_path).out)
    first = launcher("validate", "ppo_7b", "--json", folder=tmp_path).data("recipe")
    again = launcher("validate", "again.yaml", "--json", folder=tmp_path).data("recipe")
    assert again["recipe"]["stages"] == first["recipe"]["stages"]
    assert load_recipe(str(tmp_path / "again.yaml")).stages == load_recipe("ppo_7b").stages


def test_the_schema_is_a_schema(tmp_path: Path) -> None:
    schema = json.loads(launcher("schema", folder=tmp_path).out)
    assert schema == json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    words = f"{LAUNCHER} plan ppo_7b --cluster mixed --show-sbatch"
    command = f"{words} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ppo-7b on mixed")


def on_a_terminal(folder: Path, **env: str) -> str:
    """What a wrong command prints on a terminal."""
    ours, theirs = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [LAUNCHER, "status", "nothing"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env={**clean, **env},
    )  # fmt: skip
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 4096):
            text += piece
    except OSError:
        pass  # Linux says so when the last writer has closed the terminal.
    os.close(ours)
    assert process.wait(timeout=30) == 2
    return text.decode()


def test_colour_is_for_terminals_that_want_it(tmp_path: Path) -> None:
    assert "\x1b[" in on_a_terminal(tmp_path, TERM="xterm")
    assert "\x1b" not in on_a_terminal(tmp_path, TERM="xterm", NO_COLOR="1")


def test_a_terminal_of_few_letters_gets_question_marks(tmp_path: Path) -> None:
    env = {"PYTHONIOENCODING": "cp437"}
    words = ("plan", "sft_0.5b", "--cluster", "mixed")
    ended = launcher(*words, folder=tmp_path, env=env, encoding="cp437")
    assert "8 ? 16 ? 1 = 128" in ended.out


def test_the_shipped_profiles_are_listed(tmp_path: Path) -> None:
    names = launcher("cluster", "list", folder=tmp_path).out.split()
    assert names == sorted(path.stem for path in (ROOT / "slurm" / "clusters").glob("*.yaml"))


def test_a_run_that_cannot_be_read_does_not_hide_the_others(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "old").mkdir()
    (tmp_path / "runs" / "old" / "plan.json").write_text('{"schema_version": 0}')
    ended = launcher("list", "--json", folder=tmp_path)
    assert len(ended.data("runs")) == 1
    assert "warning: old: the plan has schema version 0" in ended.err


def test_all_runs_are_listed_with_one_question_to_slurm(tmp_path: Path) -> None:
    for _ in range(2):
        run, _ = run_folder.create(tmp_path / "runs", ON_SLURM, {"name": "chain"}, new=True)
        journal.append(run.journal, journal.Event("intent", 1.0, "sft", "t"))
        journal.append(run.journal, journal.Event("submitted", 1.0, "sft", "t", "41"))
    squeue = tmp_path / "squeue"
    squeue.write_text(
        "#!/bin/sh\necho asked >> squeue.log\n"
        f"echo '41|RUNNING|None|N/A|n1|(null)|launcher:{run.root.name}:sft:t'\n"
    )
    squeue.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    runs = launcher("list", "--json", folder=tmp_path, env=env).data("runs")
    assert sorted(run["state"] for run in runs) == ["failed", "running"]
    assert (tmp_path / "squeue.log").read_text() == "asked\n"
