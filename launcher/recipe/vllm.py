"""Whether a stage generates with vLLM, and what of a recipe does not go together with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from launcher.recipe.document import Node
from launcher.recipe.methods import METHODS
from launcher.recipe.reading import Reading
from launcher.recipe.types import Peft, Stage

Mode = Literal["colocate", "server"]
MODES: tuple[Mode, ...] = ("colocate", "server")


def mode(stage: Stage) -> Mode | None:
    """How the stage generates with vLLM: in the trainers' processes (`colocate`, TRL's default), or
    through a server of its own; None: without it."""
    return _mode(stage.train) if METHODS[stage.method].online else None


def _mode(train: Mapping[str, Any]) -> Mode | None:
    if not train.get("use_vllm"):
        return None
    return "server" if train.get("vllm_mode") == "server" else "colocate"


def check(
    reading: Reading, node: Node, at: str, train: Mapping[str, Any], peft: Peft | None
) -> None:
    """Note what is wrong with the stage's use of vLLM, whatever it runs on."""
    given = train.get("vllm_mode")
    if given is not None and given not in MODES:
        text = f"got {given!r}, expected one of {', '.join(MODES)}"
        reading.wrong(_entry(node, "vllm_mode"), f"{at}.train.vllm_mode", text)
        return
    found = _mode(train)
    own = node.get("resources")
    pinned = own.get("server_gpus") if own is not None else None
    if pinned is not None and pinned.value not in (None, "auto") and found != "server":
        text = "the stage has no vLLM server; set `train: {use_vllm: true, vllm_mode: server}`"
        reading.wrong_key(pinned, f"{at}.resources.server_gpus", text)
    if found is None:
        _say_idle(reading, node, at, train)
        return
    if train.get("ds3_gather_for_generation") is False:
        text = "vLLM is handed whole weights; leave it out with `use_vllm`"
        entry = _entry(node, "ds3_gather_for_generation")
        reading.wrong_key(entry, f"{at}.train.ds3_gather_for_generation", text)
    quantization = peft.quantization if peft is not None else None
    if quantization is not None and found == "server":
        text = "a quantized base (`peft.quantization`) cannot be handed to a vLLM server;"
        text += " use `vllm_mode: colocate` with nf4, or an adapter without it"
        reading.wrong_key(_entry(node, "vllm_mode"), f"{at}.train.vllm_mode", text)
    elif quantization == "int8":
        text = "vLLM reads no base in int8; use `peft.quantization: nf4`"
        reading.wrong_key(_entry(node, "use_vllm"), f"{at}.train.use_vllm", text)


def _say_idle(reading: Reading, node: Node, at: str, train: Mapping[str, Any]) -> None:
    """Say that keys of vLLM do nothing where nothing is said of its use."""
    idle = [key for key, value in train.items() if key.startswith("vllm_") and value is not None]
    if idle and "use_vllm" not in train:
        place = _entry(node, idle[0]).key_place
        text = f"{', '.join(idle)}: without effect, as long as there is no `use_vllm: true`"
        reading.warnings.append(f"{place} {at}.train.{text}")


def _entry(node: Node, key: str) -> Node:
    block = node.get("train")
    found = block.get(key) if block is not None else None
    return found if found is not None else node
