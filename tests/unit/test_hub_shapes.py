"""Shapes from the hub: a server on this machine answers as the hub does."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import UsageError
from launcher.models.find import Places, shape_of
from launcher.models.hub import ENDPOINT, Hub, hub_of

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 128,
    "max_position_embeddings": 256,
}
FILES: dict[str, Any] = {
    "/me/small/resolve/main/config.json": CONFIG,
    "/me/small/resolve/refs%2Fpr%2F1/config.json": CONFIG | {"num_hidden_layers": 2},
    "/me/adapter/resolve/main/adapter_config.json": {"base_model_name_or_path": "me/small"},
    "/me/list/resolve/main/config.json": [],
}


class _Answers(BaseHTTPRequestHandler):
    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        if self.path.startswith("/me/slow/"):
            time.sleep(1)
        if self.path.startswith("/me/elsewhere/"):
            self.send_response(302)
            self.send_header("Location", "/me/small/resolve/main/config.json")
            self.end_headers()
            return
        found = FILES.get(self.path)
        if found is None:
            mine = self.path.startswith("/me/adapter/")
            self.send_response(403 if self.path.startswith("/me/gated/") else 404)
            self.send_header("X-Error-Code", "EntryNotFound" if mine else "RepoNotFound")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    made.seen = []  # type: ignore[attr-defined]
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def hub(server: ThreadingHTTPServer, **more: Any) -> Places:
    return Places(hub=Hub(f"http://127.0.0.1:{server.server_port}", **more))


def test_a_model_that_nothing_here_knows_is_read_from_the_hub(server: ThreadingHTTPServer) -> None:
    shape = shape_of("me/small", hub(server))
    assert (shape.name, shape.layers, shape.source) == ("me/small", 3, "hub")


def test_the_hub_is_asked_for_the_revision(server: ThreadingHTTPServer) -> None:
    shape = shape_of("me/small@refs/pr/1", hub(server))
    assert (shape.name, shape.layers) == ("me/small@refs/pr/1", 2)
    with pytest.raises(UsageError, match="shows no model `me/small@v9`"):
        shape_of("me/small@v9", hub(server))


def test_a_model_of_the_table_is_not_asked_for(server: ThreadingHTTPServer) -> None:
    assert shape_of("Qwen/Qwen2.5-7B", hub(server)).source == "table"
    assert not server.seen  # type: ignore[attr-defined]


def test_an_adapter_on_the_hub_has_the_shape_of_its_base(server: ThreadingHTTPServer) -> None:
    found = shape_of("me/adapter", hub(server))
    assert (found.layers, found.adapter) == (3, True)
    assert not shape_of("me/small", hub(server)).adapter


def test_a_token_goes_to_the_hub_and_to_no_server_that_it_sends_on_to(
    server: ThreadingHTTPServer,
) -> None:
    assert shape_of("me/elsewhere", hub(server, token="secret")).layers == 3
    tokens = [token for _, token in server.seen]  # type: ignore[attr-defined]
    assert tokens == ["Bearer secret", None]


@pytest.mark.parametrize("name", ["me/gated", "me/none"])
def test_a_model_that_the_hub_does_not_show_is_refused_with_the_way_out(
    server: ThreadingHTTPServer, name: str
) -> None:
    with pytest.raises(UsageError, match="shows no model") as caught:
        shape_of(name, hub(server))
    assert "hf auth login" in str(caught.value.hint)


def test_what_the_hub_gives_that_is_no_configuration_is_refused(
    server: ThreadingHTTPServer,
) -> None:
    with pytest.raises(UsageError, match="no JSON object"):
        shape_of("me/list", hub(server))


def test_a_hub_that_does_not_answer_is_given_up_in_its_time(server: ThreadingHTTPServer) -> None:
    start = time.monotonic()
    with pytest.raises(UsageError, match="could not be asked"):
        shape_of("me/slow", hub(server, timeout=0.1))
    assert time.monotonic() - start < 0.8


def test_a_hub_out_of_reach_is_said_to_be() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UsageError, match=r"could not be asked: .*refused") as caught:
        shape_of("me/small", Places(hub=Hub(f"http://127.0.0.1:{port}")))
    assert "hf download me/small config.json" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["../etc", "me/small/more", "a b", "me/small?x=1"])
def test_what_is_no_hub_name_is_not_asked_for(server: ThreadingHTTPServer, name: str) -> None:
    with pytest.raises(UsageError):
        shape_of(name, hub(server))
    assert not server.seen  # type: ignore[attr-defined]


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_an_environment_that_is_offline_has_no_hub(switch: str, tmp_path: Path) -> None:
    assert hub_of({switch: "1"}, tmp_path) is None
    assert hub_of({switch: "0"}, tmp_path) is not None


def test_the_hub_is_the_one_of_the_environment_with_the_token_that_was_saved(
    tmp_path: Path,
) -> None:
    assert hub_of({}, tmp_path) == Hub(ENDPOINT)
    saved = tmp_path / ".cache" / "huggingface" / "token"
    saved.parent.mkdir(parents=True)
    saved.write_text("mine\n")
    found = hub_of({"HF_ENDPOINT": "https://mirror.example/"}, tmp_path)
    assert found == Hub("https://mirror.example", "mine")
    stated = hub_of({"HF_TOKEN": "other"}, tmp_path)
    assert stated is not None and stated.token == "other"
