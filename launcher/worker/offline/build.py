"""A trainer that learns from the rows of a data set: one way for all of TRL's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from launcher.errors import UsageError
from launcher.recipe.methods import METHODS
from launcher.worker import arguments, data, models
from launcher.worker.context import Context
from launcher.worker.finish import Finished
from launcher.worker.fit import callbacks, fit
from launcher.worker.offline import pairs
from launcher.worker.stop import Stop

Arrange = Callable[[Context, Any], Any]
"""The training rows, given them as they were read."""


def trained(
    context: Context, stop: Stop, kind: Any, arrange: Arrange | None = None
) -> Finished | None:
    """Train the stage with `kind`, a class of trainers, on its rows as `arrange` puts them.

    None when it was stopped before the end.
    """
    # The settings come first: ZeRO-3 shards what is loaded after them.
    config = arguments.config(context)
    tokenizer = models.tokenizer(context)
    rows = data.training_set(context, tokenizer)
    pairs.examine(context, rows)
    if arrange is not None:
        rows = arrange(context, rows)
    method = METHODS[context.stage.method]
    folder = context.model(method.main_role)
    assert folder is not None  # the recipe's checks see to it
    reward = method.result == "reward_model"
    keywords: dict[str, Any] = {}
    if "reference" in method.roles:
        keywords["ref_model"] = _reference(context, config)
    keywords |= {
        "model": (
            models.new_reward_model(context, folder, tokenizer.pad_token_id)
            if reward
            else models.causal(context, folder)
        ),
        "args": config,
        "train_dataset": rows,
        "eval_dataset": data.evaluation_set(context, tokenizer),
        "processing_class": tokenizer,
        "peft_config": models.lora(context, "SEQ_CLS" if reward else "CAUSAL_LM"),
        "callbacks": callbacks(context, stop),
    }
    trainer = _made(kind, keywords)
    if keywords.get("ref_model") is not None and config.precompute_ref_log_probs:
        # It has said all that is asked of it, and TRL would hold it to the end.
        trainer.ref_model = None
    return fit(context, trainer, stop)


def _made(kind: Any, keywords: dict[str, Any]) -> Any:
    try:
        return kind(**keywords)
    except (ValueError, NotImplementedError) as error:
        # Trainers look their settings, data and tokenizer through before they do anything.
        raise UsageError(f"TRL refuses the stage: {error}") from error


def _reference(context: Context, config: Any) -> Any:
    """The reference beside the policy; None where the policy itself gives what it would say.

    That is an adapter's base, and, where all is computed before the training, the policy at its
    start. Else TRL would load a second one in the policy's precision; here it is that of what only
    reads.
    """
    folder = models.reference_of(context)
    own = folder == context.model("policy")
    if folder is None or (own and config.precompute_ref_log_probs):
        return None
    return models.frozen_causal(context, folder)
