"""The value function: a head on the policy's trunk, or a model of its own.

Either is attached to the policy as a submodule, so that whatever moves, wraps, shards, optimizes
and checkpoints the policy (DDP, ZeRO, accelerate, the optimizer) does so for the value function
too, and the policy's forward returns values next to the log-probabilities. What must stay a plain
causal language model, the saved folder, is written with the value function detached.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

ATTRIBUTE = "value_function"
"""The name under which the policy holds its value function."""


class ValueHead(nn.Linear):
    """A linear map from the policy's last hidden states to values, in float32.

    It starts at zero: every state is worth nothing until the rewards say otherwise, and all
    processes start alike without a random number.
    """

    filename = "value_head.safetensors"

    def __init__(self, hidden_size: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(hidden_size, 1, dtype=dtype)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, trunk_states: Tensor, **_: Any) -> Tensor:
        """Values (B, T) of the hidden states (B, T, H)."""
        with torch.autocast(trunk_states.device.type, enabled=False):
            weight, bias = self.weight.float(), self.bias.float()
            return nn.functional.linear(trunk_states.float(), weight, bias).squeeze(-1)


class ValueModel(nn.Module):
    """A sequence-classification model with one label, whose score at each token is the value.

    Raises `ValueError` where the model has no such head.
    """

    filename = "value_model.safetensors"

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        super().__init__()
        base = without_peft(model)
        if not hasattr(base, "score") or base.config.num_labels != 1:
            raise ValueError(
                f"The value model is a {type(base).__name__} with {base.config.num_labels} labels; "
                "it must be a sequence-classification model with a `score` head of one label."
            )
        self.model = model

    def forward(self, trunk_states: Tensor, *, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Values (B, T) at the same T positions as the policy's hidden states (B, T, H)."""
        base = without_peft(self.model)
        states = base.base_model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        window = states[:, -1 - trunk_states.size(1) : -1]
        values: Tensor = base.score(window)
        return values.squeeze(-1).float()


def without_peft(model: nn.Module) -> Any:
    """The model itself, or the base model that adapters sit in."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def is_value_parameter(name: str) -> bool:
    return f".{ATTRIBUTE}." in f".{name}"


@contextmanager
def detached(model: PreTrainedModel) -> Iterator[None]:
    """`model` without its value function, for what must see a plain causal language model."""
    value_function = getattr(model, ATTRIBUTE)
    delattr(model, ATTRIBUTE)
    try:
        yield
    finally:
        setattr(model, ATTRIBUTE, value_function)


def split_state(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A state dict as (the policy's, the value function's with the names that itself has)."""
    policy = {name: tensor for name, tensor in state.items() if not is_value_parameter(name)}
    value = {
        name.split(f"{ATTRIBUTE}.", 1)[1]: tensor
        for name, tensor in state.items()
        if is_value_parameter(name)
    }
    return policy, value


def save_value_function(value_function: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    """Write `state` beside the policy, under the value function's own file name."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / value_function.filename, metadata={"format": "pt"})


def load_value_function(value_function: nn.Module, folder: Path) -> None:
    """Read what `save_value_function` wrote. Raises `FileNotFoundError` where there is none."""
    path = folder / value_function.filename
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {path.name}: it is no checkpoint of PPO with this value function."
        )
    value_function.load_state_dict(load_file(path))


def give_value_learning_rate(
    optimizer: torch.optim.Optimizer, value_function: nn.Module, learning_rate: float
) -> None:
    """Move the value function's parameters into optimizer groups with their own learning rate."""
    ours = {id(parameter) for parameter in value_function.parameters()}
    for group in list(optimizer.param_groups):
        mine = [parameter for parameter in group["params"] if id(parameter) in ours]
        if mine:
            group["params"] = [p for p in group["params"] if id(p) not in ours]
            optimizer.add_param_group({**group, "params": mine, "lr": learning_rate})
