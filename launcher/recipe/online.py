"""What of a stage that generates while it trains would be refused on the node, or teach nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from launcher.recipe.document import Node
from launcher.recipe.reading import Reading
from launcher.recipe.train import wrong


def check(reading: Reading, node: Node, at: str, train: Mapping[str, Any]) -> None:
    """Note values of `train` that do not go together; a method without the keys states none."""
    wrong(reading, node, at, _contradictions(train))


def _contradictions(train: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Key → what is wrong with it."""
    clip = train.get("reward_clip_range")
    if clip is not None and (len(clip) != 2 or clip[0] >= clip[1]):
        yield "reward_clip_range", f"got {clip}, expected a lower and a higher number"
    if train.get("kl_controller") == "adaptive" and train.get("kl_coef") == 0:
        text = "`kl_controller: adaptive` scales it, and nothing makes more of 0; start above it"
        yield "kl_coef", text
