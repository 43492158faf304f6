"""Proximal policy optimisation through our PPOTrainer."""

from __future__ import annotations

from launcher.worker import arguments, data, models
from launcher.worker.context import Context
from launcher.worker.finish import Finished
from launcher.worker.fit import callbacks, fit
from launcher.worker.stop import Stop


def run(context: Context, stop: Stop) -> Finished | None:
    from launcher.worker.ppo.trainer import PPOTrainer

    config = arguments.config(context)
    tokenizer = models.tokenizer(context)
    policy, reward_model = context.model("policy"), context.model("reward_model")
    assert policy is not None and reward_model is not None
    reference, value_model = (
        models.reference_of(context, weight=config.kl_coef),
        context.model("value_model"),
    )
    pad = tokenizer.pad_token_id
    trainer = PPOTrainer(
        model=models.causal(context, policy),
        reward_model=models.trained_reward_model(context, reward_model, pad),
        ref_model=None if reference is None else models.frozen_causal(context, reference),
        value_model=(
            None if value_model is None else models.value_model(context, value_model, pad)
        ),
        args=config,
        train_dataset=data.training_set(context, tokenizer),
        processing_class=tokenizer,
        peft_config=models.lora(context, "CAUSAL_LM"),
        callbacks=callbacks(context, stop),
    )
    return fit(context, trainer, stop)
