"""Where a model's weights lie while it is evaluated: whole on each device, or shared by ZeRO-3."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def placed(
    load: Callable[[], Any], device: Any, deepspeed: Mapping[str, Any] | None
) -> Iterator[Any]:
    """The model that `load` gives, ready to read with; the next one finds its memory free.

    With a ZeRO-3 configuration each rank holds a share of the weights and collects a layer at a
    time, so that all ranks must call it equally often.
    """
    # Here, since the caller still names the last model when this ends for it.
    gc.collect()
    if deepspeed is None:
        yield load().to(device).eval()
        return
    import deepspeed as engines
    from transformers.integrations import HfDeepSpeedConfig

    # While this lives, transformers loads every model in shares.
    shares = HfDeepSpeedConfig(dict(deepspeed))
    engine = engines.initialize(model=load(), config=dict(deepspeed))[0]
    engine.module.eval()
    try:
        yield engine.module
    finally:
        engine.destroy()
        _release(engine.module)
        del shares


def _release(module: Any) -> None:
    """Give the weights back: DeepSpeed has noted the model, and keeps it until the process ends."""
    for parameter in module.parameters():
        for held in (parameter, parameter.ds_tensor):
            held.data = held.data.new_empty(0)
