"""Online direct preference optimisation through TRL's OnlineDPOTrainer."""

from __future__ import annotations

from launcher.worker import arguments, data, models
from launcher.worker.context import Context
from launcher.worker.finish import Finished
from launcher.worker.fit import callbacks, fit
from launcher.worker.stop import Stop


def run(context: Context, stop: Stop) -> Finished | None:
    from launcher.worker.online.pairs import OnlineDpo
    from launcher.worker.rewards.build import judges

    config = arguments.config(context)
    judging = judges(context)
    tokenizer = models.tokenizer(context)
    policy = context.model("policy")
    assert policy is not None
    reference = models.reference_of(context)
    trainer = OnlineDpo(
        model=models.causal(context, policy),
        ref_model=None if reference is None else models.frozen_causal(context, reference),
        judges=judging,
        args=config,
        train_dataset=data.training_set(context, tokenizer),
        processing_class=tokenizer,
        peft_config=models.lora(context, "CAUSAL_LM"),
        callbacks=callbacks(context, stop),
    )
    return fit(context, trainer, stop)
