"""What the software does with a stage's tensors: precisions, kernels, optimizer.

The plan decides `Settings`; the recipe and the installed packages decide the `Stack`. Every field
names a mechanism that moves memory, so that a run of another framework is described, not fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from launcher.memory.types import Settings
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Dtype, Stage

Base = Literal["dense", "nf4", "nf4-double", "int8", "gptq4"]
"""How the frozen weights of an adapter's base are stored. NF4: packed to half a byte with one
float32 scale for 64 weights, or that scale itself in 8 bits (double quantization)."""
Attention = Literal["flash", "sdpa", "eager"]
Loss = Literal[
    "fused head", "tiled", "stock", "shifted", "rebound", "half", "pieces", "sliced", "liger"
]
"""What is made of the logits. `fused head`: TRL's Triton kernels, tiles only; `tiled`: the same
without Triton, where a tile is unfolded in float32. `stock`: the whole logits, their float32 copy,
log-softmax and gradients; `shifted`: as transformers 4.46 to 4.49 did, with one more copy, of all
positions but the last; `rebound`: as those before, whose half-precision logits were gone by then.
`half`: a shifted copy in the logits' own width, float32 only where autocast asks for it;
`pieces`: logits and log-softmax in their own width, a piece of the sequence at a time; `sliced`:
logits of all positions, of which a part goes into a log-softmax (TRL's online DPO).
`liger`: the loss fused with the head's product, whose gradients are made in the forward pass."""
LIGER = frozenset({"rms_norm", "rope", "swiglu"})
"""The kernels that `use_liger_kernel` puts in place of transformers' own, beside its loss."""


@dataclass(frozen=True)
class Stack:
    """Defaults are those of a bfloat16 training in plain TRL, weights in bfloat16."""

    weights: Dtype = "bfloat16"
    """Storage of what trains, or of the base of an adapter."""
    residual: Dtype | None = None
    """Precision of the stream between blocks where it is not that of the weights (a quantized base
    that PEFT prepared for training has its embedding in float32)."""
    compute: Dtype = "bfloat16"
    autocast: bool = False
    """Whether matrix products cast what is not in `compute` to it (`bf16=True` of a trainer)."""
    adapters: Dtype = "float32"
    """Storage of LoRA's matrices."""
    base: Base = "dense"
    optimizer: str = "adamw_torch_fused"
    """A value of transformers' `OptimizerNames`."""
    attention: Attention = "flash"
    padded: bool = False
    """Whether rows of a batch are padded: `sdpa` is then given a mask."""
    loss: Loss = "fused head"
    fused: frozenset[str] = frozenset()
    """Kernels that keep only their inputs: `rms_norm`, `rope`, `swiglu`, `lora`; and
    `cross_entropy`, which needs no log-softmax and writes the gradient over the logits."""
    sharding: Literal["zero", "fsdp"] = "zero"
    """Whose rules divide states where `Settings.zero_stage` is above 0."""
    whole_buckets: bool = False
    """Whether DeepSpeed's gradient buckets are larger than what trains (our configs see to it that
    they are not)."""
    reentrant: bool = False
    """Whether checkpoints are torch's older kind, which makes a whole block again before it walks
    it, and holds its output and that one's gradient until it has."""
    repeated_heads: bool = False
    """Whether keys and values are repeated for every query head before FlashAttention
    (transformers' Mistral, Mixtral and Qwen2 before 4.48)."""
    expandable: bool = False
    """Whether the allocator's segments can grow (`expandable_segments`)."""
    shared_units: bool = False
    """FSDP: whether adapters share their flat parameter with the frozen weights beside them."""
    expert_layers: bool = False
    """Whether experts are linear layers of their own, one run after the other, which quantization
    packs (transformers before 5), and not one parameter a block."""
    balances_experts: bool = False
    """Whether the loss weighs how evenly experts are used, for which every block's router logits
    stay until they have their gradient (TRL's `router_aux_loss_coef`)."""
    quantized_keeps: Dtype | None = None
    """In what precision quantized layers keep their input (bitsandbytes before 0.43)."""
    quantized_head: bool = False
    """Whether the head is packed, too, and the embedding that bitsandbytes' own one has replaced is
    still there (Lightning's plugin under LitGPT)."""
    joint_qkv: bool = False
    """Whether queries, keys and values are views of one projection, which the values keep whole."""
    keeps_cache: bool = False
    """Whether a model in training still fills its key-value cache (transformers' GPTBigCode)."""

    @property
    def masked(self) -> bool:
        """Whether attention is torch's own with a mask of every pair of tokens. FlashAttention
        leaves padded rows out, and eager attention has its scores of every pair, too."""
        return self.padded and self.attention == "sdpa"

    @property
    def stream(self) -> int:
        """Bytes of an element of the stream between blocks."""
        return width(self.residual or self.weights)


def width(dtype: Dtype) -> int:
    """Bytes of one element."""
    return 4 if dtype == "float32" else 2


def beside(stack: Stack) -> Stack:
    """For a model that trains whole beside an adapter on another: under autocast in float32."""
    return replace(stack, weights="float32") if stack.autocast else stack


def gathered(stack: Stack) -> Stack:
    """What a block sees under FSDP: parameters gathered in the precision of the products."""
    # Adapters in float32 are cast by FSDP's mixed precision only, which comes with autocast.
    adapters = stack.compute if stack.autocast else stack.adapters
    return replace(stack, weights=stack.compute, adapters=adapters)


def stack_of(stage: Stage, settings: Settings) -> Stack:
    """What the launcher's own worker does with `stage`, from its recipe.

    Weights that train keep a float32 master: without DeepSpeed they are it themselves, under
    autocast; an adapter's base stays in the stage's dtype. DeepSpeed runs models in that dtype.
    """
    half, alone = stage.dtype != "float32", settings.zero_stage == 0
    trains = METHODS[stage.method].trains
    whole = trains and half and alone and stage.peft is None
    cuda, liger = settings.device == "cuda", bool(stage.train.get("use_liger_kernel"))
    quantization = stage.peft.quantization if stage.peft is not None else None
    return Stack(
        weights="float32" if whole else stage.dtype,
        compute=stage.dtype,
        autocast=trains and half and alone,
        adapters="float32" if alone else stage.dtype,
        base=quantization or "dense",
        optimizer=str(stage.train.get("optim", "adamw_torch_fused")),
        attention=_attention(stage),
        padded=_padded(stage, settings),
        loss=_loss(stage, cuda, liger),
        fused=LIGER if liger else frozenset(),
        expandable=grows(stage),
        balances_experts=_balances(stage),
    )


def _balances(stage: Stage) -> bool:
    """TRL's trainers but the reward model's, unless the recipe sets the coefficient to zero; that
    of a config which says none is not zero either."""
    asked = METHODS[stage.method].balances_experts
    return asked and stage.train.get("router_aux_loss_coef") != 0


def _loss(stage: Stage, cuda: bool, liger: bool) -> Loss:
    if stage.method == "online_dpo":
        return "sliced"
    return "liger" if liger else "fused head" if cuda else "tiled"


def grows(stage: Stage) -> bool:
    """Whether the stage's trainer is given an allocator whose segments can grow."""
    return not stage.train.get("use_vllm")


def _attention(stage: Stage) -> Attention:
    """What the recipe names; else transformers' choice, torch's scaled_dot_product_attention."""
    given = stage.train.get("model_init_kwargs")
    name = str(given.get("attn_implementation", "")) if isinstance(given, Mapping) else ""
    if name == "eager":
        return "eager"
    return "flash" if "flash" in name else "sdpa"


def _padded(stage: Stage, settings: Settings) -> bool:
    """Rows of a batch differ in length; those of online methods, whose prompts are as wide as the
    widest of a rollout, even where a batch is one. Packed rows have a mask of where each ends."""
    method = METHODS[stage.method]
    rows = settings.micro_batch * method.sequences_per_row
    return rows > 1 or method.online or bool(stage.train.get("packing"))
