"""Supervised fine-tuning through TRL's SFTTrainer."""

from __future__ import annotations

from launcher.worker import arguments, data, models
from launcher.worker.context import Context
from launcher.worker.finish import Finished
from launcher.worker.fit import callbacks, fit
from launcher.worker.stop import Stop


def run(context: Context, stop: Stop) -> Finished | None:
    from trl import SFTTrainer

    config = arguments.config(context)
    tokenizer = models.tokenizer(context)
    model = context.model("model")
    assert model is not None
    trainer = SFTTrainer(
        model=models.causal(context, model),
        args=config,
        train_dataset=data.training_set(context, tokenizer),
        eval_dataset=data.evaluation_set(context, tokenizer),
        processing_class=tokenizer,
        peft_config=models.lora(context, "CAUSAL_LM"),
        callbacks=callbacks(context, stop),
    )
    return fit(context, trainer)
