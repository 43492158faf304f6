"""What a chain needs from a hub is fetched before it is queued; the hub is a stand-in."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import LauncherError
from launcher.models import cache
from launcher.plan.types import Plan
from launcher.recipe.types import Data
from launcher.run import assets
from launcher.run.assets import Asset
from tests.unit.running import ON_THIS_MACHINE

COMMIT = "c" * 40
FILES = {
    "config.json": b"{}",
    "tokenizer_config.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"a pickle",
    "modeling.py": b"code",
}


class _Hub(BaseHTTPRequestHandler):
    """Has the model me/small whole, and me/pickled with a pickle alone."""

    def do_GET(self) -> None:
        words = self.path.split("/")
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        if self.path.startswith("/api/models/me/"):
            files = self._files(words[4])
            answer: Any = {
                "id": f"me/{words[4]}",
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in files],
            }
            if "/tree/" in self.path:
                answer = [
                    {"type": "file", "path": name, "size": len(data), "oid": name}
                    for name, data in files.items()
                ]
            self._answer(json.dumps(answer).encode() if files else None)
        else:
            self._answer(self._files(words[2]).get(words[-1]))

    do_HEAD = do_GET

    def _files(self, model: str) -> dict[str, bytes]:
        if model == "pickled":
            return {name: data for name, data in FILES.items() if "safetensors" not in name}
        return FILES if model == "small" else {}

    def _answer(self, data: bytes | None) -> None:
        self.send_response(200 if data is not None else 404)
        if data is None:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"' + str(len(data or b"")) + self.path[-8:] + '"')
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data or b"")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.seen = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    yield server
    server.shutdown()
    server.server_close()


def wanting(*models: str, data: str = "/data.jsonl", **env: str) -> Plan:
    """A plan whose stages train these models on `data`."""
    first = ON_THIS_MACHINE.stages[0]
    stages = tuple(
        replace(
            first,
            stage=replace(first.stage, name=f"s{n}", models={"model": model}, data=Data(data)),
        )
        for n, model in enumerate(models)
    )
    cluster = replace(ON_THIS_MACHINE.cluster, env=env)
    return replace(ON_THIS_MACHINE, cluster=cluster, stages=stages)


def test_a_model_is_fetched_once_without_its_pickles_and_code(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    plan = wanting("me/small", "me/small", "/models/folder")
    assert assets.missing(plan) == (Asset("model", "me/small"),)
    assets.fetch(plan, assets.missing(plan))
    assert assets.missing(plan) == ()
    snapshot = cache.snapshot("me/small", tmp_path / "hf" / "hub")
    assert snapshot is not None and snapshot.name == COMMIT
    assert {path.name for path in snapshot.iterdir()} == {
        "config.json", "tokenizer_config.json", "model.safetensors",
    }  # fmt: skip


def test_a_model_at_a_revision_is_fetched_at_it_and_found_again(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    plan, place = wanting("me/small@v1.0"), tmp_path / "hf" / "hub"
    assert assets.missing(plan) == (Asset("model", "me/small@v1.0"),)
    assets.fetch(plan, assets.missing(plan))
    assert assets.missing(plan) == () != assets.missing(wanting("me/small"))
    assert any("/revision/v1.0" in path for path in hub.seen)  # type: ignore[attr-defined]
    assert cache.commit("me/small@v1.0", place) == COMMIT


@pytest.mark.parametrize("fetched", [True, False])
def test_a_node_loads_a_revision_from_its_folder_and_asks_for_it_only_where_it_may(
    hub: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetched: bool
) -> None:
    program = "from launcher.worker.revision import placed; print(placed(NAME, code=False))"

    def said(name: str) -> str:
        words = [sys.executable, "-c", program.replace("NAME", repr(name))]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        return done.stdout or done.stderr

    folder = tmp_path / "hf" / "hub" / "models--me--small" / "snapshots" / COMMIT
    if fetched:
        assert said("me/small@v1.0").strip() == str(folder)
        assert (folder / "model.safetensors").is_file()
        assert "me/nowhere@v1.0 could not be had" in said("me/nowhere@v1.0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    expected = str(folder) if fetched else "cache of this node does not have me/small@v1.0"
    assert expected in said("me/small@v1.0")
    assert said("me/small").strip() == "me/small"


def test_a_cache_with_a_config_alone_or_half_of_the_weights_lacks_the_model(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    plan = wanting("me/small")
    folder = tmp_path / "hf" / "hub" / "models--me--small"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    (snapshot / "config.json").write_text("{}")
    assert assets.missing(plan)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "model-1.safetensors").write_text("1")
    assert assets.missing(plan)
    (snapshot / "model-2.safetensors").write_text("2")
    assert assets.missing(plan) == ()


@pytest.mark.parametrize(
    ("model", "why"),
    [("me/pickled", "no weights in safetensors"), ("me/nowhere", "me/nowhere")],
)
def test_what_the_hub_has_not_is_named_with_a_way_out(
    model: str, why: str, hub: ThreadingHTTPServer
) -> None:
    plan = wanting(model)
    with pytest.raises(LauncherError, match=why) as refused:
        assets.fetch(plan, assets.missing(plan))
    assert refused.value.hint and "hf download" in refused.value.hint


def test_a_hub_that_is_not_there_is_an_error_with_a_way_out(
    hub: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = wanting("me/small")
    # The discard port: nothing listens there.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LauncherError, match="could not be fetched: model me/small"):
        assets.fetch(plan, assets.missing(plan))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LauncherError, match="HF_HUB_OFFLINE is set"):
        assets.fetch(plan, assets.missing(plan))


def test_nothing_is_fetched_for_nodes_that_may_ask_the_hub(hub: ThreadingHTTPServer) -> None:
    assert assets.missing(wanting("me/small", HF_HUB_OFFLINE="0")) == ()
    assert assets.missing(wanting("me/small", HF_HUB_OFFLINE="1")) != ()


def test_data_of_the_hub_are_wanted_until_they_have_been_read_here(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    plan = wanting("/models/folder", data="me/rows")
    assert assets.missing(plan) == (Asset("data", "me/rows"),)
    (tmp_path / "hf" / "datasets" / "me___rows" / "default").mkdir(parents=True)
    assert assets.missing(plan) == ()


def test_two_fetches_of_one_asset_wait_for_each_other_and_a_dead_ones_lock_is_none(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    locks = tmp_path / "hf" / "hub" / ".locks"
    locks.mkdir(parents=True)
    (locks / "launcher-model-me--small.lock").write_text("left by a process that died")
    text = json.dumps([{"kind": "model", "name": "me/small", "config": None}])
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "launcher.worker.fetch"], stdin=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in running:
        process.communicate(text, timeout=60)
    assert [process.returncode for process in running] == [0, 0]
    weights = [path for path in hub.seen if path.endswith("model.safetensors")]  # type: ignore[attr-defined]
    # The second finds all of it: it asks which revision there is, and loads nothing.
    assert len(weights) == 2, weights
