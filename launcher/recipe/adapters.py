"""What is said of an adapter where a whole model is wanted: its base, and how to merge the two."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote

from launcher.recipe.problems import show

_MERGE = (
    "import sys; from peft import {model} as M; from transformers import AutoTokenizer as T;"
    " adapter, tokens, to = sys.argv[1:]; M.from_pretrained(adapter{options}).merge_and_unload()"
    ".save_pretrained(to); T.from_pretrained(tokens).save_pretrained(to)"
)


def in_folder(folder: Path) -> str:
    """Of a folder that holds an adapter alone, which a stage may have left beside the whole."""
    try:
        config = json.loads((folder / "adapter_config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        config = {}
    config = config if isinstance(config, dict) else {}
    base = config.get("base_model_name_or_path")
    of = f" of {show(base)}" if isinstance(base, str) and base else ""
    text = f"{show(str(folder))} holds an adapter{of}, and no whole model; name "
    merged = folder.parent / "model"
    if folder.name == "adapter" and (merged / "config.json").is_file():
        return f"{text}{_whole(str(merged))}, where its stage left the two merged"
    own = (folder / "tokenizer_config.json").is_file()
    tokens = str(folder) if own else str(base) if of else "BASE"
    judges = config.get("task_type") == "SEQ_CLS"
    return f"{text}the folder that this makes of the two: {merge(str(folder), tokens, judges)}"


def merge(adapter: str, tokens: str, judges: bool = False) -> str:
    """The command that merges an adapter into its base, with the tokenizer from `tokens`."""
    kind = "SequenceClassification" if judges else "CausalLM"
    options = ", num_labels=1" if judges else ""
    code = _MERGE.format(model=f"AutoPeftModelFor{kind}", options=options)
    return f'python -c "{code}" {_whole(adapter)} {_whole(tokens)} ./merged'


def _whole(text: str) -> str:
    """`text` as a shell takes it, of any length; what a terminal might obey is only shown."""
    return quote(text) if text.isprintable() else show(text)
