"""A rollout on disk, so that a run stopped between two optimizer steps of it goes on with it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from trl.trainer.utils import split_tensor_dict

MicroBatch = dict[str, Tensor]


def path_of(folder: Path, process_index: int) -> Path:
    return folder / f"rollout_{process_index}.safetensors"


def save_rollout(
    folder: Path, micro_batches: list[MicroBatch], process_index: int, world_size: int
) -> None:
    """Write the rollout of one process. Tensors without rows are the same in all micro-batches."""
    whole = {
        name: torch.cat([batch[name] for batch in micro_batches]) if tensor.ndim else tensor
        for name, tensor in micro_batches[0].items()
    }
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
