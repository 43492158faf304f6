"""A rollout: its micro-batches without padding, mixed anew, and on disk.

A run that is stopped between two optimizer steps of a rollout goes on with it from disk.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

MicroBatch = dict[str, Tensor]


def trimmed(batch: MicroBatch) -> MicroBatch:
    """`batch` without the columns that are padding in each of its rows.

    Prompts have their padding to the left, everything of completions to the right.
    """
    completion = int(batch["completion_mask"].sum(dim=1).max())
    prompt = int(batch["prompt_mask"].sum(dim=1).max())
    full = batch["completion_mask"].size(1)
    return {
        name: tensor[:, batch["prompt_mask"].size(1) - prompt :]
        if name.startswith("prompt_")
        else tensor[:, :completion]
        if tensor.ndim == 2 and tensor.size(1) == full
        else tensor
        for name, tensor in batch.items()
    }


def shuffled(micro_batches: list[MicroBatch]) -> list[MicroBatch]:
    """The same rows in other micro-batches, drawn from torch's global random state."""
    mixed: list[MicroBatch] = split_tensor_dict(
        shuffle_sequence_dict(_joined(micro_batches)), len(micro_batches)
    )
    return mixed


def _joined(micro_batches: list[MicroBatch]) -> MicroBatch:
    """One batch of all rows. Tensors without rows are the same in all micro-batches."""
    return {
        name: torch.cat([batch[name] for batch in micro_batches]) if tensor.ndim else tensor
        for name, tensor in micro_batches[0].items()
    }


def path_of(folder: Path, process_index: int) -> Path:
    return folder / f"rollout_{process_index}.safetensors"


def save_rollout(
    folder: Path, micro_batches: list[MicroBatch], process_index: int, world_size: int
) -> None:
    """Write the rollout of one process."""
    whole = _joined(micro_batches)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in whole.items()}
    save_file(tensors, path_of(folder, process_index), metadata={"world_size": str(world_size)})


def load_rollout(
    folder: Path, process_index: int, world_size: int, steps: int, device: torch.device
) -> list[MicroBatch] | None:
    """The rollout of one process as `steps` micro-batches, of whatever size that makes.

    None where the checkpoint lies between two rollouts, or is from another number of processes.
    """
    path = path_of(folder, process_index)
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        if file.metadata()["world_size"] != str(world_size):
            return None
        whole = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
    micro_batches: list[MicroBatch] = split_tensor_dict(whole, steps)
    return micro_batches
