"""Something changed between two attempts."""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults import processes
from tests.faults.case import Case
from tests.faults.fault import Lost, Missed, fault
from tests.faults.scenes import SFT, SHORT, TINY


def _stop(case: Case) -> int:
    """Cancel the run amid its steps; returns the step."""
    step = case.until_step(case.draw_step(2, 9))
    with case.halted():
        said = case.site.call("cancel", case.root.root.name)
    if said.code != 0:
        raise Lost(f"cancel exited {said.code}: {said.err.strip()[-300:]}")
    case.until_gone(90)
    if case.complete():
        raise Missed("it was complete")
    return step


def _refused_then_accepted(case: Case, what: str, step: int) -> None:
    """`resume` refuses, and goes on with --accept-change. Raises Lost."""
    name = case.root.root.name
    said = case.site.call("resume", name, "--json")
    if said.code == 0:
        case.until_failed("(?i)chang")
    case.hit(f"{what} changed after step {step}: exit {said.code}, {said.err.strip()[-120:]}")
    accepted = case.site.call("resume", name, "--accept-change")
    if accepted.code != 0:
        raise Lost(f"--accept-change exited {accepted.code}: {accepted.err.strip()[-300:]}")
    case.finish(900)


@fault("the data changed between two attempts", SHORT, end="stays stopped")
def data(case: Case) -> None:
    rows = case.folder / "rows.jsonl"
    rows.write_text(Path(case.scene.stages["sft"]["data"]["path"]).read_text())
    case.submit({"data": {**case.scene.stages["sft"]["data"], "path": str(rows)}})
    step = _stop(case)
    lines = rows.read_text().splitlines(keepends=True)
    changed = case.rng.randrange(len(lines))
    row = json.loads(lines[changed])
    said = row["messages"][-1]["content"]
    row["messages"][-1]["content"] = ("q" if said[:1] != "q" else "z") + said[1:]
    lines[changed] = json.dumps(row) + "\n"
    rows.write_text("".join(lines))
    _refused_then_accepted(case, "the data", step)


@fault("the model changed between two attempts", SHORT, end="stays stopped")
def model(case: Case) -> None:
    own = case.folder / "model"
    own.mkdir()
    for path in (TINY / "model").iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    case.submit({"model": str(own)})
    step = _stop(case)
    weights = own / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-case.rng.randint(1, 10_000)] ^= 1
    weights.write_bytes(bytes(content))
    _refused_then_accepted(case, "the model", step)


@fault("the run's code changed between two attempts", SHORT, end="stays stopped")
def code(case: Case) -> None:
    case.submit()
    step = _stop(case)
    sources = sorted((case.root.code / "launcher" / "worker").glob("*.py"))
    chosen = case.rng.choice(sources)
    chosen.write_text(chosen.read_text() + "\n# changed\n")
    _refused_then_accepted(case, chosen.name, step)


@fault("the recipe changed between two attempts", SHORT, end="next command", redo=1)
def recipe(case: Case) -> None:
    """Another recipe is another run; the first goes on as it was."""
    case.submit()
    step = _stop(case)
    path = case.folder / "recipe.yaml"
    changed = case.folder / "changed.yaml"
    changed.write_text(path.read_text().replace("0.002", f"0.00{case.rng.randint(3, 9)}"))
    if changed.read_text() == path.read_text():
        raise Missed("the recipe is the same")
    other = str(case.site.data("submit", changed)["run"])
    case.site.call("cancel", other)
    if other == case.root.root.name:
        raise Lost("another recipe rejoined the run")
    case.hit(f"changed after step {step}: {other} beside {case.root.root.name}")
    said = case.site.call("resume", case.root.root.name)
    if said.code != 0:
        raise Lost(f"resume exited {said.code}: {said.err.strip()[-300:]}")


@fault("the plan is for another number of GPUs", SFT, end="stays stopped")
def gpus(case: Case) -> None:
    """Refused before anything is queued."""
    case.submit()
    step = _stop(case)
    case.committed()
    other = case.folder / "other.json"
    planned = case.site.call("plan", case.folder / "recipe.yaml", "resources.gpus=2", "-o", other)
    if planned.code != 0:
        raise Lost(f"plan exited {planned.code}: {planned.err.strip()[-300:]}")
    plan = json.loads(case.root.plan.read_text())
    plan["stages"] = json.loads(other.read_text())["stages"]
    case.root.plan.write_text(json.dumps(plan))
    jobs = case.jobs()
    said = case.site.call("resume", case.root.root.name)
    if said.code != 2 or "was written by 1 process, the plan has 2" not in said.err:
        raise Lost(f"resume exited {said.code}: {said.err.strip()[-300:]}")
    if case.jobs() != jobs or case.queued():
        raise Lost("a job was queued")
    case.hit(f"two processes after step {step} of one: {said.err.strip()[-300:]}")


@fault("the finished stage before it is damaged", SHORT, end="stays stopped")
def upstream(case: Case) -> None:
    """The next stage does not build on a model that is not as it was left."""
    case.submit()
    case.until(lambda: case.complete("sft"), "the first stage")
    weights = case.root.stage("sft").model / "model.safetensors"
    with weights.open("r+b") as handle:
        handle.truncate(case.rng.randrange(1, weights.stat().st_size))
    if any(p.stage == "rm" for p in processes.of_run(case.root.root, processes.TRAINER)):
        raise Missed("the next stage had begun")
    case.until_failed("bytes|chang|missing")
    case.hit(f"refused: {case.told()[:120]}")
