"""A trainer that generates, from the stage: models, data, judges, reference."""

from __future__ import annotations

from typing import Any

from launcher.worker import arguments, data, models
from launcher.worker.context import Context
from launcher.worker.fit import callbacks
from launcher.worker.rewards.build import judges
from launcher.worker.stop import Stop


def grouped(context: Context, stop: Stop, kind: Any) -> Any:
    """A `Grpo` or `Rloo` of `launcher.worker.online.grouped`."""
    # The settings come first: ZeRO-3 shards what is loaded after them.
    config = arguments.config(context)
    judging = judges(context)
    tokenizer = models.tokenizer(context)
    policy = context.model("policy")
    assert policy is not None
    reference = models.reference_of(context, weight=config.beta)
    return kind(
        model=models.causal(context, policy),
        args=config,
        judges=judging,
        ref_model=None if reference is None else models.frozen_causal(context, reference),
        train_dataset=data.training_set(context, tokenizer),
        eval_dataset=data.evaluation_set(context, tokenizer),
        processing_class=tokenizer,
        peft_config=models.lora(context, "CAUSAL_LM"),
        callbacks=callbacks(context, stop),
    )
