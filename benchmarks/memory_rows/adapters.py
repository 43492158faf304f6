"""What a row trains, from the free text in its `peft` column."""

from __future__ import annotations

import re
from dataclasses import dataclass

from benchmarks.memory_rows.case import Unknowable
from launcher.memory.lora import linear_layers
from launcher.memory.stack import Base
from launcher.models.types import ModelShape
from launcher.recipe.types import Peft

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
_WORDS: dict[str, tuple[str, ...]] = {
    "q": ("q_proj",),
    "k": ("k_proj",),
    "v": ("v_proj",),
    "o": ("o_proj",),
    "qv": ("q_proj", "v_proj"),
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "qkvo": ATTENTION,
    "mlp": MLP,
    # Names that other families give the same matrices. Of Qwen's MLP, w1 and w2 go up; its
    # `c_proj` comes down, and is the attention's output too.
    "c_attn": ("q_proj", "k_proj", "v_proj"),
    "attn.c_proj": ("o_proj",),
    "c_proj": ("o_proj", "down_proj"),
    "c_fc": ("up_proj",),
    "w1": ("up_proj",),
    "w2": ("gate_proj",),
    "query_key_value": ("q_proj", "k_proj", "v_proj"),
    **{name: (name,) for name in (*ATTENTION, *MLP)},
}
_JOINT = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    **dict.fromkeys(("gate_proj", "up_proj"), "gate_up_proj"),
}
_EVERY = re.compile(r"\b(all([- ]linear)?|linear[- ]all)\b")
_OTHERS = re.compile(
    r"^(adalora|adamss|adaption_prompt|adapter|beft|boft|bone|c3a|cartridge|cpt|delora|fourierft|"
    r"frod|glora|gralora|hira|hra|ia3|lily|ln_?tuning|loha|lokr|miss|oft|osf|peanut|poly|prefix|"
    r"prompt|p_tuning|psoft|pvera|randlora|road|shira|supralora|tinylora|trainable_tokens|uni|"
    r"vblora|vera|waveft|xlora)"
)


@dataclass(frozen=True)
class Adapter:
    """What the text says; None where it does not."""

    full: bool = False
    base: Base = "dense"
    r: int | None = None
    targets: tuple[str, ...] | None = None
    """Canonical names; empty: all linear layers of a block."""
    trainable: int | None = None
    dora: bool = False
    whole: tuple[str, ...] = ()
    """Modules trained whole."""


def adapter(text: str) -> Adapter:
    """Reads `full`, `lora r16 qkvo`, `qlora-nf4 r16 q,v,o,mlp`, `lora bnb.nf4-dq (trainable N)`,
    `lora r32 ['v_proj', 'q_proj'] dora=False trainable=N`, and their like.

    Raises Unknowable for adapters that the launcher does not train.
    """
    lower = text.lower().strip()
    if lower in ("full", "full-parameter", "full finetuning", "full fine-tuning", "none"):
        return Adapter(full=True)
    if (other := _OTHERS.match(lower)) is not None:
        raise Unknowable(f"{other[1]} is an adapter that the launcher does not train")
    if re.search(r"lora|dora|gptq", lower) is None:
        raise Unknowable(f"what trains is not told by {text!r}")
    rank = re.search(r"\br(?:ank)?[ =]?(\d+)\b", lower)
    counted = re.search(r"trainable[ =]+([\d,]*\d)", lower)
    return Adapter(
        base=_base(lower),
        r=int(rank[1]) if rank else None,
        targets=_targets(lower),
        trainable=int(counted[1].replace(",", "")) if counted else None,
        dora="dora=true" in lower or lower.startswith(("dora", "qdora")),
        whole=_whole(lower),
    )


def _base(lower: str) -> Base:
    if "gptq" in lower or "awq" in lower:
        if "int8" in lower or "8bit" in lower:
            raise Unknowable("a base in 8-bit GPTQ, which the launcher does not train")
        return "gptq4"
    if "int8" in lower or "8bit" in lower:
        return "int8"
    if "nf4" in lower or "int4" in lower or "4bit" in lower or lower.startswith("qlora"):
        return "nf4-double" if re.search(r"\bdq\b|-dq|double", lower) else "nf4"
    return "dense"


def _targets(lower: str) -> tuple[str, ...] | None:
    if _EVERY.search(lower):
        return ()
    listed = re.search(r"\[(.*?)\]|\((?!trainable|config)(.*?)\)", lower)
    inside = next((part for part in listed.groups() if part), "") if listed else ""
    words = re.split(r"[\s,;'\"+/]+", f"{lower} {inside}".replace("(", " ").replace(")", " "))
    found: list[str] = []
    for word in words:
        found.extend(name for name in _WORDS.get(word.strip("[]"), ()) if name not in found)
    return tuple(found) or None


def _whole(lower: str) -> tuple[str, ...]:
    after = lower.split("+", 1)[1] if "+" in lower else ""
    found = []
    if re.search(r"\b(emb|embed\w*|wte)\b", after):
        found.append("embed_tokens")
    if "head" in after:
        found.append("lm_head")
    return tuple(found)


def peft(given: Adapter, shape: ModelShape, targets: tuple[str, ...] | None = None) -> Peft | None:
    """The launcher's adapter for `shape`; None for full training. `targets` where the text names
    none. A rank that is not given is told by the number of trained parameters.

    Raises Unknowable where rank or targets are told by nothing.
    """
    if given.full:
        return None
    chosen = given.targets if given.targets is not None else targets
    if chosen is None:
        raise Unknowable("which layers the adapter sits on is not told")
    names = _layers(chosen or ATTENTION + MLP, shape)
    if not names:
        raise Unknowable(f"{shape.name} has no layer of those that the adapter sits on")
    rank = given.r or _rank(given, shape, names)
    return Peft(r=rank, targets=names, modules_to_save=given.whole, dora=given.dora)


def _layers(names: tuple[str, ...], shape: ModelShape) -> tuple[str, ...]:
    """Those that blocks of `shape` have, where a joint layer stands for its parts."""
    every = linear_layers(shape)
    found: list[str] = []
    for name in names:
        for layer in (name, _JOINT.get(name, name)):
            if layer in every and layer not in found:
                found.append(layer)
    return tuple(found)


def _rank(given: Adapter, shape: ModelShape, names: tuple[str, ...]) -> int:
    if given.trainable is None:
        raise Unknowable("the adapter's rank is not told")
    hidden, inner = shape.hidden, shape.intermediate
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    outputs = {"q_proj": q, "k_proj": kv, "v_proj": kv, "gate_proj": inner, "up_proj": inner}
    outputs |= {"qkv_proj": q + 2 * kv, "gate_up_proj": 2 * inner}
    inputs = {"o_proj": q, "down_proj": inner}
    widths = sum(inputs.get(name, hidden) + outputs.get(name, hidden) for name in names)
    rank, rest = divmod(given.trainable, shape.layers * widths)
    if rest or not rank:
        raise Unknowable(
            f"{given.trainable:,} trained parameters are no rank on {', '.join(names)}"
        )
    return rank
