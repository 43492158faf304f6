"""What of a stage that learns from data TRL stops at on the node, or leaves out in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from launcher.recipe.choices import DPO_LOSSES
from launcher.recipe.document import Node
from launcher.recipe.reading import Reading
from launcher.recipe.train import wrong
from launcher.recipe.types import Peft

_SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")
"""Losses of DPO that have a meaning of their own for `label_smoothing`."""
_OF_DIFFERENCES = (
    *("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"),
)
"""Losses of DPO that are built on chosen less rejected, which any f-divergence can weigh."""


def check(
    reading: Reading,
    node: Node,
    at: str,
    method: str,
    train: Mapping[str, Any],
    peft: Peft | None,
) -> None:
    """Note what is wrong with the stage's losses, packing and adapter, whatever it runs on."""
    if method == "dpo":
        found = [*_losses(train), *_reference(train, peft)]
    elif method == "kto":
        found = [*_reference(train, peft), *_neighbours(train)]
    elif method == "sft":
        found = [*_packing(train)]
    else:
        found = []
    wrong(reading, node, at, found)
    if peft is not None and peft.quantization == "int8" and peft.dora:
        given = node.get("peft")
        dora = given.get("dora") if given is not None else None
        text = "DoRA cannot read back the weights of a base in int8; use `quantization: nf4`"
        reading.wrong_key(dora if dora is not None else node, f"{at}.peft.dora", text)


def _losses(train: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Key → what is wrong with it."""
    given = train.get("loss_type") or "sigmoid"
    losses = [given] if isinstance(given, str) else list(given)
    unknown = [str(loss) for loss in losses if loss not in DPO_LOSSES]
    if unknown:
        yield "loss_type", f"no loss {', '.join(unknown)}; there are {', '.join(DPO_LOSSES)}"
        return
    weights = train.get("loss_weights")
    if weights is not None and len(weights) != len(losses):
        yield "loss_weights", f"{len(weights)} weights for {len(losses)} losses (`loss_type`)"
    share = train.get("label_smoothing") or 0
    smoothed = [loss for loss in losses if loss in _SMOOTHED]
    if "sigmoid" in losses and share and smoothed:
        text = f"means one thing to `sigmoid` and another to `{smoothed[0]}`; leave one loss out"
        yield "label_smoothing", text
    elif {"sigmoid", "robust"} & set(losses) and not 0 <= share < 0.5:
        yield "label_smoothing", "it is the share of labels that are wrong: from 0 to below 0.5"
    if share and not smoothed and "sigmoid" not in losses:
        text = f"the loss {losses[0]} does not heed it; leave it out, or take `robust` or `sigmoid`"
        yield "label_smoothing", text
    if "exo_pair" in losses and not share:
        yield "loss_type", "exo_pair needs a `label_smoothing` above 0; its paper has 1e-3"
    divergence = train.get("f_divergence_type") or "reverse_kl"
    others = [loss for loss in losses if loss not in _OF_DIFFERENCES]
    if divergence != "reverse_kl" and others:
        yield "f_divergence_type", f"the loss {others[0]} has no form for {divergence}"
    if train.get("use_weighting") and {"aot", "aot_unpaired"} & set(losses):
        yield "use_weighting", "AOT sorts its pairs, so that no weight would meet its own"
    if train.get("padding_free"):
        yield "padding_free", "the installed TRL's DPO trainer pads all the same; leave it out"


def _reference(train: Mapping[str, Any], peft: Peft | None) -> Iterator[tuple[str, str]]:
    if not train.get("sync_ref_model"):
        return
    if peft is not None:
        yield "sync_ref_model", "an adapter's reference is its base, which cannot follow it"
    if train.get("precompute_ref_log_probs"):
        yield "sync_ref_model", "what is computed before the training cannot follow it"


def _neighbours(train: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    strategy = train.get("train_sampling_strategy", "sequential")
    if strategy != "sequential" and train.get("loss_type", "kto") != "apo_zero_unpaired":
        text = f"{strategy} parts the rows that KTO compares; leave it out: the seed shuffles them"
        yield "train_sampling_strategy", text


def _packing(train: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    longest = train.get("max_length", 1024)
    if train.get("packing") and longest is None:
        yield "max_length", "packing fills sequences up to `max_length`; state it"
    if train.get("padding_free") and not train.get("packing") and longest is not None:
        text = "it cuts nothing: set `max_length: null`, and keep long rows out of the data"
        yield "padding_free", text
