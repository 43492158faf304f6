"""What DeepSpeed keeps of a trained parameter at each ZeRO stage, counted while it runs.

    python benchmarks/zero_states.py [--stages 1 2 3] [--processes 2 4] [--optimizer NAME] [--json]

A small Llama is trained for three steps on CPU processes, with small communication buckets, under
a mode that counts every tensor's storage from its birth to its death. Printed are bytes a
parameter between steps, and at the peaks of backward pass and step above that, beside the formula
of `launcher.memory.states`, for an optimizer by transformers' name. Activations and buckets, a few
tenths, are in the measured peaks only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping
from typing import Any

SMALL = {
    "reduce_bucket_size": 1_000_000,
    "allgather_bucket_size": 1_000_000,
    "stage3_prefetch_bucket_size": 100_000,
    "stage3_max_live_parameters": 1_000_000,
    "stage3_param_persistence_threshold": 1000,
    "stage3_max_reuse_distance": 1_000_000,
}
STEPS = 3
OPTIMIZERS = ("adamw_torch_fused", "adamw_torch", "adafactor", "sgd")
CONFIG = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 8000,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw_torch_fused")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rank-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of is not None:
        _train(options.rank_of, options.optimizer)
        return
    name = options.optimizer
    rows = [_row(stage, n, name) for stage in options.stages for n in options.processes]
    if options.json:
        print(json.dumps(rows))
        return
    print("ZeRO  processes  between steps     + backward        + step     (measured / formula)")
    for row in rows:
        figures = (f"{row['measured'][k]:6.2f} / {row['formula'][k]:5.2f}" for k in row["formula"])
        print(f"{row['stage']:4d}  {row['processes']:9d}  {'   '.join(figures)}")


def _row(stage: int, processes: int, optimizer: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(processes), __file__, "--rank-of", str(stage)]
    command += ["--optimizer", optimizer]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"measured"')]
    measured: Mapping[str, float] = json.loads(lines[-1])["measured"]
    row = {"stage": stage, "processes": processes, "optimizer": optimizer, "measured": measured}
    return row | {"formula": _formula(stage, processes, optimizer)}


def _formula(stage: int, processes: int, optimizer: str) -> dict[str, float]:
    from launcher.memory.models import Resident
    from launcher.memory.stack import Stack
    from launcher.memory.states import states
    from launcher.memory.types import Settings
    from launcher.models.read import read_shape

    shape = read_shape({"model_type": "llama", "max_position_embeddings": 2048, **CONFIG}, "small")
    parameters = shape.parameters
    model = Resident("model", shape, 0, parameters)
    settings = Settings(processes=processes, processes_per_node=processes, zero_stage=stage)
    found = states(model, Stack(optimizer=optimizer), settings)
    grown = found.gradients - found.idle
    between = found.weights + found.optimizer + found.idle
    figures = {"between": between, "backward": grown, "step": grown + found.step}
    return {name: size / parameters for name, size in figures.items()}


def _train(stage: int, optimizer: str) -> None:
    import deepspeed
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter
    from transformers import LlamaConfig, LlamaForCausalLM

    class Counting(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.live = self.peak = 0
            self._seen: set[int] = set()

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            for leaf in tree_iter(result):
                if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu":
                    self._see(leaf.untyped_storage())
            return result

        def _see(self, storage: Any) -> None:
            if storage._cdata in self._seen:
                return
            self._seen.add(storage._cdata)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._dead, storage._cdata, storage.nbytes())

        def _dead(self, key: int, size: int) -> None:
            self._seen.discard(key)
            self.live -= size

    deepspeed.init_distributed("gloo")
    config = _deepspeed_config(stage)
    with Counting() as counting:
        if stage == 3:
            with deepspeed.zero.Init(config_dict_or_path=config):
                model = LlamaForCausalLM(LlamaConfig(**CONFIG))
        else:
            model = LlamaForCausalLM(LlamaConfig(**CONFIG)).to(torch.bfloat16)
        sizes = [getattr(each, "ds_numel", each.numel()) for each in model.parameters()]
        made = _optimizer(optimizer, model.parameters())
        engine, *_ = deepspeed.initialize(model=model, optimizer=made, config=config)
        ids = torch.randint(0, CONFIG["vocab_size"], (1, 32))
        for _ in range(STEPS):
            between = counting.live
            loss = engine(input_ids=ids, labels=ids).loss
            counting.peak = counting.live
            engine.backward(loss)
            del loss
            backward, counting.peak = counting.peak, counting.live
            engine.step()
    found = {"between": between, "backward": backward - between, "step": counting.peak - between}
    if os.environ["RANK"] == "0":
        print(json.dumps({"measured": {k: v / sum(sizes) for k, v in found.items()}}), flush=True)
    # Gloo's threads may abort at interpreter exit.
    os._exit(0)


def _optimizer(name: str, parameters: Any) -> Any:
    """As transformers makes it; torch's work on all tensors at once, as they do on a GPU."""
    import torch
    from transformers import Adafactor

    if name == "adafactor":
        return Adafactor(parameters, lr=1e-5, scale_parameter=False, relative_step=False)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=1e-5, foreach=True)
    fused = name == "adamw_torch_fused"
    return torch.optim.AdamW(parameters, lr=1e-5, fused=fused, foreach=not fused)


def _deepspeed_config(stage: int) -> dict[str, Any]:
    from launcher.memory.types import Settings
    from launcher.plan.deepspeed import deepspeed_config, shipped_bases
    from launcher.recipe.types import Stage

    processes = int(os.environ["WORLD_SIZE"])
    settings = Settings(processes, processes, zero_stage=stage, device="cpu")
    given = Stage("sft", "sft", {"model": "small"})
    config = deepspeed_config(given, settings, shipped_bases()[stage], 10**12)
    zero = config["zero_optimization"]
    zero.update({key: value for key, value in SMALL.items() if key in zero})
    return config


if __name__ == "__main__":
    main()
