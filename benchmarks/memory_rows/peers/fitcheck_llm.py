"""fitcheck-llm, asked in an environment of its own that is thrown away."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.memory_rows.case import Case
from launcher.memory.lengths import lengths

VERSION = "0.3.1"
_ASK = Path(__file__).with_name("ask_fitcheck.py")
_BASES = {"nf4": "nf4", "nf4-double": "nf4", "int8": "int8", "gptq4": "nf4"}


def estimates(cases: Sequence[Case]) -> list[float | None]:
    """Bytes, or None for what it refuses (mixtures of experts, several GPUs).

    Where the environment cannot be made (no package index in reach) it answers nothing.
    """
    with tempfile.TemporaryDirectory(prefix="fitcheck-") as folder:
        python = Path(folder) / "bin" / "python"
        venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", f"fitcheck-llm=={VERSION}"]
        made = subprocess.run(install, capture_output=True, text=True)
        if made.returncode:
            print(f"fitcheck-llm cannot be installed: {made.stderr.strip()}", file=sys.stderr)
            return [None] * len(cases)
        asked = subprocess.run(
            [str(python), str(_ASK)],
            input=json.dumps([_question(case) for case in cases]),
            capture_output=True,
            text=True,
            check=True,
        )
    answers: list[float | None] = json.loads(asked.stdout)
    return [None if mib is None else mib * 2**20 for mib in answers]


def _question(case: Case) -> dict[str, Any] | None:
    shape, peft, settings = case.shapes["model"], case.stage.peft, case.settings
    if settings.processes > 1 or shape.experts:
        return None
    half = case.stack.weights != "float32"
    eight = case.stack.optimizer in ("adamw_8bit", "adamw_bnb_8bit")
    precision = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
    return {
        "model": {
            "name": shape.name,
            "num_params": shape.parameters,
            "hidden_size": shape.hidden,
            "num_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_kv_heads": shape.kv_heads,
            "intermediate_size": shape.intermediate,
            "vocab_size": shape.vocab,
            "head_dim": shape.head_dim,
            "tie_word_embeddings": shape.tied_embeddings,
        },
        "training": {
            "precision": precision[case.stack.weights],
            "quantization": _BASES.get(case.stack.base, "none"),
            "double_quant": case.stack.base == "nf4-double",
            "optimizer": "adam8bit" if eight else "adamw",
            "optimizer_dtype": "bf16" if peft is None and half else "fp32",
            "batch_size": settings.micro_batch,
            "seq_len": lengths(case.stage, shape).total,
            "lora_rank": None if peft is None else peft.r,
            "lora_targets": [] if peft is None else _separate(peft.targets),
            "grad_checkpoint": settings.gradient_checkpointing,
            "flash_attn": case.stack.attention != "eager",
        },
    }


def _separate(targets: str | tuple[str, ...]) -> list[str]:
    joint = {
        "qkv_proj": ("q_proj", "k_proj", "v_proj"),
        "gate_up_proj": ("gate_proj", "up_proj"),
    }
    return [part for name in targets for part in joint.get(name, (name,))]
