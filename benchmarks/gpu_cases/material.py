"""Models, tokenizers and data of the cases, made where they are measured: nothing is carried."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from benchmarks.gpu_cases.case import TINY, Case
from launcher.errors import LauncherError
from launcher.models.config import config_of
from launcher.models.table import known
from launcher.models.types import ModelShape

# The family's own names: under others its tokenizer would add tokens past the vocabulary.
PAD, END = "<|endoftext|>", "<|im_end|>"
_SPECIAL = (PAD, END)
_ROWS = 64


def shape(model: str) -> ModelShape:
    """The published shape of this size of Qwen2.5; of `TINY` the same on a small scale."""
    found = known(f"Qwen/Qwen2.5-{'0.5B' if model == TINY else model}")
    assert found is not None
    if model == TINY:
        small = replace(found, name=TINY, hidden=64, intermediate=128, layers=2, vocab=512)
        return replace(small, heads=4, kv_heads=2, head_dim=16)
    return found


class Material:
    """Makes what a case needs below one folder, each thing once."""

    def __init__(self, folder: Path, device: str) -> None:
        self._folder = folder
        self._device = device

    def model(self, name: str) -> Path:
        """The model's folder. Until `save_weights` only its configuration is in it."""
        folder = self._folder / "models" / name
        if not folder.is_dir():
            folder.mkdir(parents=True)
            ends = {"eos_token_id": _SPECIAL.index(END), "bos_token_id": None}
            _write(folder / "config.json", config_of(shape(name)) | ends)
        return folder

    def reward_model(self, name: str) -> Path:
        """A reward model on the same weights. Its head is made of chance whenever it is loaded."""
        policy = self.model(name)
        folder = policy.with_name(f"{name}-reward")
        folder.mkdir(exist_ok=True)
        config = json.loads((policy / "config.json").read_text())
        config["architectures"] = ["Qwen2ForSequenceClassification"]
        config["id2label"], config["label2id"] = {"0": "LABEL_0"}, {"LABEL_0": 0}
        _write(folder / "config.json", config)
        for file in policy.iterdir():
            if file.name != "config.json" and not (folder / file.name).exists():
                (folder / file.name).symlink_to(file)
        return folder

    def save_weights(self, name: str) -> None:
        """Write weights of chance and the tokenizer into the model's folder, if they are not there.

        Another process does it, whose memory on the device is gone when this returns. Raises
        LauncherError.
        """
        if not self.has_weights(name):
            folder, root = self.model(name), Path(__file__).parents[2]
            argv = [sys.executable, "-m", __name__, str(folder), self._device]
            done = subprocess.run(argv, cwd=root, capture_output=True, text=True)
            if done.returncode:
                words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
                raise LauncherError(f"model {name} could not be made: {words[-1]}")
        self.reward_model(name)

    def has_weights(self, name: str) -> bool:
        return any(self.model(name).glob("*.safetensors"))

    def data(self, case: Case) -> Path:
        """A JSON Lines file whose rows have exactly the case's length."""
        path = self._folder / "data" / f"{case.method}-{case.length}.jsonl"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            rng = random.Random(case.length)
            rows = (json.dumps(_row(case, rng)) for _ in range(_ROWS))
            path.write_text("\n".join(rows) + "\n")
        return path


def _row(case: Case, rng: random.Random) -> dict[str, str]:
    def text(tokens: int) -> str:
        return "".join(rng.choices(ascii_lowercase, k=tokens))

    # Trainers add the token that ends a sequence.
    if case.method == "sft":
        return {"text": text(case.length - 1)}
    if case.method == "reward":
        return {"chosen": text(case.length - 1), "rejected": text(case.length - 1)}
    prompt = text(case.length - case.completion)
    if case.method == "dpo":
        answers = {name: text(case.completion - 1) for name in ("chosen", "rejected")}
        return {"prompt": prompt, **answers}
    return {"prompt": prompt}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def _save(folder: Path, device: str) -> None:
    """Weights of chance in bfloat16, and a tokenizer of as many tokens as the model knows, to which
    every byte of a text is one."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    config = AutoConfig.from_pretrained(folder)
    tokens = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    # What a model of chance writes must be text, whatever token it draws.
    tokens += [f"unused{i}" for i in range(config.vocab_size - len(tokens))]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END
    ).save_pretrained(folder)
    torch.manual_seed(0)
    # On the device: a processor draws seven billion numbers in minutes.
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)


if __name__ == "__main__":
    _save(Path(sys.argv[1]), sys.argv[2])
