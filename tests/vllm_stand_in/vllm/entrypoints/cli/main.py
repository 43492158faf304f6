"""`vllm serve` as far as TRL 1.16 speaks to it, with canned tokens or a real model, and faults.

Variables: STAND_IN_START_S (seconds until it answers), STAND_IN_DIE_AFTER, STAND_IN_HANG_AFTER,
STAND_IN_STALL_AFTER (answers to `/v1/completions` after which it dies, leaves that request alone,
or answers nothing at all), STAND_IN_MODEL (1: the model writes), STAND_IN_STUBBORN (1: deaf to
SIGTERM), STAND_IN_LOG (a file that gets a line for each thing that it does).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOREVER_S = 3600


def fault(name: str) -> float:
    return float(os.environ.get(f"STAND_IN_{name}", "inf"))


def log(**event: Any) -> None:
    path = os.environ.get("STAND_IN_LOG")
    if path:
        with Path(path).open("a") as file:
            file.write(json.dumps({"pid": os.getpid(), **event}) + "\n")


class Engine:
    """What the workers of a server hold."""

    def __init__(self, words: argparse.Namespace) -> None:
        self.words = words
        self.answered = 0
        self.connection: socket.socket | None = None
        self.model: Any = None
        if os.environ.get("STAND_IN_MODEL"):
            import torch
            from transformers import AutoModelForCausalLM

            torch.manual_seed(words.seed)
            torch.set_num_threads(1)
            dtype = getattr(torch, words.dtype)
            self.model = AutoModelForCausalLM.from_pretrained(words.model, dtype=dtype).eval()

    def receive(self, info: dict[str, Any]) -> None:
        assert self.connection is not None
        log(event="weights", names=len(info["names"]))
        own = dict(self.model.named_parameters()) if self.model is not None else {}
        for name, shape in zip(info["names"], info["shapes"], strict=True):
            count = 4
            for size in shape:
                count *= size
            data = bytearray()
            while len(data) < count:
                piece = self.connection.recv(min(count - len(data), 2**20))
                assert piece, "the trainer let go"
                data += piece
            if own:
                import torch

                weight = torch.frombuffer(data, dtype=torch.float32).reshape(shape)
                with torch.no_grad():
                    own[name].copy_(weight)

    def complete(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        choices = []
        for prompt in asked["prompt"]:
            longest = len(prompt) + asked["max_tokens"]
            assert longest <= (self.words.max_model_len or longest), "past the context"
            choices += [_choice(prompt, *written) for written in self._write(prompt, asked)]
        return choices

    def _write(
        self, prompt: list[int], asked: dict[str, Any]
    ) -> list[tuple[list[int], list[float]]]:
        count, longest = asked["n"], asked["max_tokens"]
        if self.model is None:
            canned = [[5 + (3 * one + k) % 50 for k in range(longest)] for one in range(count)]
            return [(ids, [-1.0] * longest) for ids in canned]
        import torch

        eos = self.model.generation_config.eos_token_id
        ends = eos if isinstance(eos, list) else [eos]
        rows = torch.tensor([prompt] * count)
        given = []
        with torch.no_grad():
            for _ in range(longest):
                logits = self.model(rows).logits[:, -1].float()
                own = torch.log_softmax(logits / asked["temperature"], dim=-1)
                tokens = torch.multinomial(own.exp(), 1)
                given.append(own.gather(1, tokens))
                rows = torch.cat([rows, tokens], dim=1)
        every = zip(rows[:, len(prompt) :].tolist(), torch.cat(given, 1).tolist(), strict=True)
        return [_until(ends, ids, logps) for ids, logps in every]


def _until(ends: list[int], ids: list[int], logps: list[float]) -> tuple[list[int], list[float]]:
    """Up to the first token that ends a completion, that included."""
    found = next((k + 1 for k, token in enumerate(ids) if token in ends), len(ids))
    return ids[:found], logps[:found]


def _choice(prompt: list[int], ids: list[int], logps: list[float]) -> dict[str, Any]:
    names = [f"token_id:{token}" for token in ids]
    return {
        "prompt_token_ids": prompt,
        "token_ids": ids,
        "logprobs": {
            "tokens": names,
            "token_logprobs": logps,
            "top_logprobs": [{n: p} for n, p in zip(names, logps, strict=True)],
        },
    }


class Handler(BaseHTTPRequestHandler):
    engine: Engine
    silent = False

    def log_message(self, format: str, *words: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._wait()
        words = self.engine.words
        answers: dict[str, Any] = {
            "/health": {},
            "/v1/models": {"data": [{"id": words.model}]},
            "/get_world_size": {"world_size": words.tensor_parallel_size},
            "/server_info": {
                "vllm_config": {
                    "weight_transfer_config": words.weight_transfer_config,
                    "model_config": {"logprobs_mode": words.logprobs_mode},
                }
            },
        }
        path = self.path.partition("?")[0]
        developing = os.environ.get("VLLM_SERVER_DEV_MODE") == "1"
        hidden = path in ("/get_world_size", "/server_info") and not developing
        self._answer(None if hidden else answers.get(path))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        asked = json.loads(self.rfile.read(length) or b"{}")
        self._wait()
        engine = self.engine
        if self.path == "/init_weight_transfer_engine":
            info = asked["init_info"]
            engine.connection = self._connected(info["master_address"], info["master_port"])
        elif self.path == "/update_weights":
            engine.receive(asked["update_info"])
        elif self.path == "/v1/completions":
            self._answer({"choices": self._completed(asked)})
            return
        self._answer({"success": True})

    def _completed(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        engine = self.engine
        if engine.answered >= fault("DIE_AFTER"):
            os._exit(3)
        if engine.answered >= fault("STALL_AFTER"):
            Handler.silent = True
            self._wait()
        if engine.answered >= fault("HANG_AFTER"):
            time.sleep(FOREVER_S)
        engine.answered += 1
        log(event="completions", prompts=len(asked["prompt"]), n=asked["n"])
        return engine.complete(asked)

    def _connected(self, host: str, port: int) -> socket.socket:
        deadline = time.monotonic() + 60
        while True:
            try:
                return socket.create_connection((host, port))
            except ConnectionRefusedError:
                # The trainer listens once it has asked.
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def _wait(self) -> None:
        if Handler.silent:
            time.sleep(FOREVER_S)

    def _answer(self, value: Any) -> None:
        data = json.dumps(value).encode()
        with contextlib.suppress(BrokenPipeError):
            self.send_response(200 if value is not None else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm")
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    for name, kind in (
        ("host", str), ("port", int), ("tensor-parallel-size", int), ("dtype", str),
        ("gpu-memory-utilization", float), ("model-impl", str), ("seed", int),
        ("uvicorn-log-level", str), ("weight-transfer-config", json.loads),
        ("logprobs-mode", str), ("max-logprobs", int), ("max-model-len", int),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind)
    return parser.parse_args(argv)


def main() -> None:
    words = parsed(sys.argv[1:])
    if os.environ.get("STAND_IN_STUBBORN"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A worker, as vLLM has one for each GPU: nothing but its own end ends it.
    worker = subprocess.Popen(
        [sys.executable, "-S", "-c", f"import time; time.sleep({FOREVER_S})", words.model]
    )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    log(event="start", argv=sys.argv[1:], worker=worker.pid, visible=visible)
    started = os.environ.get("STAND_IN_START_S")
    time.sleep(float(started) if started else 0)
    Handler.engine = Engine(words)
    server = ThreadingHTTPServer((words.host, words.port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log(event="serving")
    signal.pause()


if __name__ == "__main__":
    main()
