"""A Bradley–Terry reward model through TRL's RewardTrainer."""

from __future__ import annotations

from launcher.worker import arguments, data, models
from launcher.worker.context import Context
from launcher.worker.finish import Finished
from launcher.worker.fit import callbacks, fit
from launcher.worker.stop import Stop


def run(context: Context, stop: Stop) -> Finished | None:
    from trl import RewardTrainer

    config = arguments.config(context)
    tokenizer = models.tokenizer(context)
    model = context.model("model")
    assert model is not None
    trainer = RewardTrainer(
        model=models.new_reward_model(context, model, tokenizer.pad_token_id),
        args=config,
        train_dataset=data.training_set(context, tokenizer),
        eval_dataset=data.evaluation_set(context, tokenizer),
        processing_class=tokenizer,
        peft_config=models.lora(context, "SEQ_CLS"),
        callbacks=callbacks(context, stop),
    )
    return fit(context, trainer)
