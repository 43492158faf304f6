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
    """The model that `load` gives, ready to read with; its memory is given back at the end.

    With a ZeRO-3 configuration each rank holds a share of the weights and collects a layer at a
    time, so that all ranks must call it equally often.
    """
    if deepspeed is None:
        model = load().to(device).eval()
        yield model
        del model
    else:
        import deepspeed as engines
        from transformers.integrations import HfDeepSpeedConfig

        # While this lives, transformers loads every model in shares.
        shares = HfDeepSpeedConfig(dict(deepspeed))
        engine = engines.initialize(model=load(), config=dict(deepspeed))[0]
        engine.module.eval()
        yield engine.module
        engine.destroy()
        del shares, engine
    gc.collect()
