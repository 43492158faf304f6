"""The adapter of a config: `use_peft`, `lora_*` and `load_in_*`."""

from __future__ import annotations

from math import isqrt

from launcher.recipe.document import Node
from launcher.recipe.problems import show
from launcher.recipe.trl_yaml.flat import Flat

_DEFAULT_TARGETS = ("q_proj", "v_proj")
_KEYS = (
    "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters",
    "lora_modules_to_save", "lora_task_type", "use_rslora", "use_dora", "lora_bias",
    "load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant",
    "bnb_4bit_quant_storage", "bnb_4bit_compute_dtype",
)  # fmt: skip


def take(flat: Flat) -> None:
    """The stage's `peft`, with TRL's and PEFT's defaults where the config says nothing."""
    asked = flat.left.get("use_peft")
    if not flat.flag("use_peft"):
        _without(flat)
        return
    assert asked is not None
    flat.leave_out("lora_task_type", "the launcher sets it by method")
    flat.leave_out("bnb_4bit_quant_storage", "the launcher stores a quantized base by itself")
    flat.leave_out("bnb_4bit_compute_dtype", "the stage's `dtype` is what it computes in")
    _rank(flat, asked)
    flat.give_or("peft.dropout", flat.take("lora_dropout"), asked, 0.05)
    _targets(flat, asked)
    flat.give("peft.modules_to_save", flat.take("lora_modules_to_save"))
    dora = flat.left.get("use_dora")
    if flat.flag("use_dora"):
        flat.give("peft.dora", dora)
    bias = flat.take("lora_bias")
    if bias is not None and bias.value != "none":
        flat.wrong(bias, "lora_bias", "biases are not trained; leave it out")
    _quantization(flat)


def _without(flat: Flat) -> None:
    for key in ("load_in_4bit", "load_in_8bit"):
        node = flat.left.get(key)
        if node is not None and node.value is True:
            text = "only an adapter's base is quantized; add `use_peft: true`"
            flat.wrong(node, key, text)
    for key in _KEYS:
        flat.leave_out(key, "there is no adapter without `use_peft: true`, as in TRL")


def _rank(flat: Flat, asked: Node) -> None:
    rank, alpha = flat.take("lora_r"), flat.take("lora_alpha")
    flat.give_or("peft.r", rank, asked, 16)
    flat.give_or("peft.alpha", alpha, asked, 32)
    stabilized = flat.left.get("use_rslora")
    if not flat.flag("use_rslora"):
        return
    assert stabilized is not None
    r = rank.value if rank is not None else 16
    scale = alpha.value if alpha is not None else 32
    if not (isinstance(r, int) and isinstance(scale, int)) or r < 1:
        return  # the schema of `peft` says what is wrong
    # It scales by alpha / √r, and an adapter here by alpha / r.
    if isqrt(r) ** 2 != r:
        text = f"its scale is alpha / √r, which is no whole `peft.alpha` at r {r}; take a rank "
        flat.wrong(stabilized, "use_rslora", text + "that is a square (16, 64), or leave it out")
        return
    flat.give("peft.alpha", stabilized, scale * isqrt(r))
    text = f"taken as `peft.alpha: {scale * isqrt(r)}`, which gives the same scale"
    flat.note(stabilized, "use_rslora", text)


def _targets(flat: Flat, asked: Node) -> None:
    parameters = flat.take("lora_target_parameters")
    if parameters is not None and parameters.value != []:
        text = "adapters go to modules here; use `lora_target_modules`"
        flat.wrong(parameters, "lora_target_parameters", text)
    targets = flat.take("lora_target_modules")
    if targets is None or targets.value == []:
        flat.give("peft.targets", asked, _DEFAULT_TARGETS)
        if not flat.says("peft.targets"):
            text = "no `lora_target_modules`: q_proj and v_proj get adapters, as PEFT has it for "
            flat.note(asked, "use_peft", text + "most models; `all-linear` usually learns more")
    elif isinstance(targets.value, list) and len(targets.value) == 1:
        flat.give("peft.targets", targets.value[0])
    else:
        flat.give("peft.targets", targets)


def _quantization(flat: Flat) -> None:
    four, eight = flat.left.get("load_in_4bit"), flat.left.get("load_in_8bit")
    in_four, in_eight = flat.flag("load_in_4bit"), flat.flag("load_in_8bit")
    kind, nested = flat.take("bnb_4bit_quant_type"), flat.flag("use_bnb_nested_quant")
    if in_four and in_eight and eight is not None:
        flat.wrong(eight, "load_in_8bit", "load_in_4bit is true too; keep one")
    elif in_eight:
        flat.give("peft.quantization", eight, "int8")
    elif in_four:
        if kind is not None and kind.value != "nf4":
            text = f"got {show(kind.value)}, expected nf4, which is the better of the two"
            flat.wrong(kind, "bnb_4bit_quant_type", text)
        flat.give("peft.quantization", four, "nf4-double" if nested else "nf4")
