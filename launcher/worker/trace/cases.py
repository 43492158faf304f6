"""The designed set of traces that the formula is held against.

Not a full product: every factor is varied on two or three architectures, the pairs that matter
(checkpointing × adapters, length × batch, method × adapters) together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2-0.5b": {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
        "tie_word_embeddings": True, "max_position_embeddings": 32768,
    },
    "qwen2-7b": {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
        "tie_word_embeddings": False, "max_position_embeddings": 32768,
    },
    "qwen3-4b": {
        "model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 151936, "tie_word_embeddings": True, "max_position_embeddings": 40960,
    },
    "llama-1b": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "vocab_size": 128256, "tie_word_embeddings": True, "max_position_embeddings": 131072,
    },
    "llama-8b": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "tie_word_embeddings": False, "max_position_embeddings": 131072,
    },
    "mistral-7b": {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32768,
        "tie_word_embeddings": False, "max_position_embeddings": 32768, "sliding_window": None,
    },
    "gemma2-2b": {
        "model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
        "vocab_size": 256000, "tie_word_embeddings": True, "max_position_embeddings": 8192,
    },
    "phi3-mini": {
        "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064,
        "tie_word_embeddings": False, "max_position_embeddings": 4096,
    },
}  # fmt: skip
"""True widths and vocabularies; each case says how many layers."""

MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral-8x7b": {
        "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8,
        "num_experts_per_tok": 2, "vocab_size": 32000, "tie_word_embeddings": False,
        "max_position_embeddings": 32768, "sliding_window": None,
    },
    "qwen3-30b-a3b": {
        "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144,
        "moe_intermediate_size": 768, "num_attention_heads": 32, "num_key_value_heads": 4,
        "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936,
        "tie_word_embeddings": False, "max_position_embeddings": 40960,
    },
    "qwen1.5-moe": {
        "model_type": "qwen2_moe", "hidden_size": 2048, "intermediate_size": 5632,
        "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
        "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 60,
        "num_experts_per_tok": 4, "vocab_size": 151936, "tie_word_embeddings": False,
        "max_position_embeddings": 8192,
    },
}  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "gpt2-large": {
        "model_type": "gpt2", "n_embd": 1280, "n_head": 20, "n_positions": 1024,
        "vocab_size": 50257,
    },
    "phi-2": {
        "model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240,
        "num_attention_heads": 32, "vocab_size": 51200, "max_position_embeddings": 2048,
        "partial_rotary_factor": 0.4, "resid_pdrop": 0.1, "tie_word_embeddings": False,
    },
    "pythia-1.4b": {
        "model_type": "gpt_neox", "hidden_size": 2048, "intermediate_size": 8192,
        "num_attention_heads": 16, "vocab_size": 50304, "max_position_embeddings": 2048,
        "rotary_pct": 0.25, "tie_word_embeddings": False,
    },
    "stablelm-2-1.6b": {
        "model_type": "stablelm", "hidden_size": 2048, "intermediate_size": 5632,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 100352,
        "max_position_embeddings": 4096, "partial_rotary_factor": 0.25, "use_qkv_bias": True,
        "tie_word_embeddings": False,
    },
    "starcoder2-3b": {
        "model_type": "starcoder2", "hidden_size": 3072, "intermediate_size": 12288,
        "num_attention_heads": 24, "num_key_value_heads": 2, "vocab_size": 49152,
        "max_position_embeddings": 16384, "sliding_window": 4096, "use_bias": True,
        "embedding_dropout": 0.1, "residual_dropout": 0.1,
    },
    "starcoderbase-1b": {
        "model_type": "gpt_bigcode", "n_embd": 2048, "n_head": 16, "n_inner": 8192,
        "n_positions": 2048, "vocab_size": 49152,
    },
    "gemma-2b": {
        "model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256,
        "vocab_size": 256000, "max_position_embeddings": 8192,
    },
    "gemma3-1b": {
        "model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
        "vocab_size": 262144, "max_position_embeddings": 32768,
    },
    "smollm3-3b": {
        "model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008,
        "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 128256,
        "max_position_embeddings": 65536,
    },
    "olmo2-1b": {
        "model_type": "olmo2", "hidden_size": 2048, "intermediate_size": 8192,
        "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 100352,
        "max_position_embeddings": 4096, "tie_word_embeddings": False,
    },
    "granite-3-2b": {
        "model_type": "granite", "hidden_size": 2048, "intermediate_size": 8192,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 49155,
        "max_position_embeddings": 131072, "tie_word_embeddings": True,
    },
    "command-r": {
        "model_type": "cohere", "hidden_size": 8192, "intermediate_size": 22528,
        "num_attention_heads": 64, "num_key_value_heads": 64, "vocab_size": 256000,
        "max_position_embeddings": 8192,
    },
}  # fmt: skip
"""The other families, one model each; widths are true, long tables of positions shorter."""
_EVERY = CONFIGS | MIXTURES | OTHERS

LORA = {"r": 16, "alpha": 32, "targets": "all-linear"}
QV = {"r": 16, "alpha": 32, "targets": ["q_proj", "v_proj"]}
DORA = {**LORA, "dora": True}
ADAPTERS: dict[str, Mapping[str, Any] | None] = {
    "full": None, "lora": LORA, "lora64": {**LORA, "r": 64}, "qv": QV, "dora": DORA,
    "lora-head": {**LORA, "modules_to_save": ["lm_head"]},
    "lora-vocabulary": {**LORA, "modules_to_save": ["embed_tokens", "lm_head"]},
    "lora-mlp": {**LORA, "modules_to_save": ["mlp"]},
}  # fmt: skip
_BF16 = {"weights": "bfloat16", "autocast": False}
STACKS: dict[str, Mapping[str, Any] | None] = {
    "": None,
    "bf16": _BF16,
    "bf16-adapters": {**_BF16, "adapters": "bfloat16"},
    "foreach": {**_BF16, "optimizer": "adamw_torch"},
    "stock": {**_BF16, "loss": "stock"},
    "stock-amp": {"weights": "float32", "autocast": True, "loss": "stock"},
    "eager": {**_BF16, "attention": "eager"},
    "adafactor": {**_BF16, "optimizer": "adafactor"},
}
"""What is built otherwise than the worker would; the first is the worker's own way."""


@dataclass(frozen=True)
class Case:
    """A request as plain data, no longer than it must be."""

    stage: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    stack: Mapping[str, Any] | None = None


def case(
    model: str,
    layers: int,
    method: str = "sft",
    *,
    batch: int = 2,
    length: int = 1024,
    checkpointing: bool = False,
    accumulation: int = 1,
    adapters: str = "full",
    stack: str = "",
    roles: tuple[str, ...] = (),
    prompt: int = 0,
    **train: Any,
) -> Case:
    """One case. `roles`: models beside the main one, as large. `prompt`: tokens of a prompt, where
    the method generates; `length` is then the completion's."""
    main = _MAIN.get(method, "model")
    marks = [
        method, model, f"{layers}l", f"b{batch}", f"s{length}", adapters,
        "ckpt" if checkpointing else "", f"acc{accumulation}" if accumulation > 1 else "", stack,
        *roles, *(f"{key}={value}" for key, value in train.items()),
    ]  # fmt: skip
    key = "max_completion_length" if prompt else "max_length"
    stage: dict[str, Any] = {
        "name": "-".join(mark for mark in marks if mark),
        "method": method,
        "models": {main: model, **{role: f"{model}-{role}" for role in roles}},
        "train": {key: length, **train},
    }
    if prompt:
        stage["data"] = {"path": "prompts", "max_prompt_tokens": prompt}
    peft = ADAPTERS[adapters]
    if peft is not None:
        stage["peft"] = dict(peft)
    return Case(
        stage=stage,
        configs={main: {**_EVERY[model], "num_hidden_layers": layers}},
        settings={
            "micro_batch": batch,
            "accumulation": accumulation,
            "gradient_checkpointing": checkpointing,
        },
        stack=STACKS[stack],
    )


_MAIN = {"ppo": "policy", "dpo": "policy", "kto": "policy", "grpo": "policy", "rloo": "policy"}
"""Method → its main role, where that is not `model`."""


def cases() -> tuple[Case, ...]:
    """Every case, in the order of the file."""
    return (
        *_sft(),
        *_architectures(),
        *_stacks(),
        *_preferences(),
        *_online(),
        *_mixtures(),
        *_families(),
        *_copies(),
    )


def _sft() -> Iterator[Case]:
    """Adapters × checkpointing × shapes of the batch, on a small tied and a large untied model."""
    for model, layers in (("qwen2-0.5b", 4), ("llama-8b", 3)):
        for adapters in ("full", "lora", "qv"):
            for checkpointing in (False, True):
                same: dict[str, Any] = {"checkpointing": checkpointing, "adapters": adapters}
                for batch, length in ((2, 1024), (8, 512), (1, 4096)):
                    yield case(model, layers, batch=batch, length=length, **same)
                yield case(model, layers, stack="bf16", **same)
                yield case(model, layers, accumulation=2, **same)
    for adapters in ("lora64", "dora"):
        for checkpointing in (False, True):
            yield case("qwen2-0.5b", 4, checkpointing=checkpointing, adapters=adapters)
            yield case("llama-8b", 2, checkpointing=checkpointing, adapters=adapters)


def _architectures() -> Iterator[Case]:
    for model in CONFIGS:
        for adapters in ("full", "lora"):
            for checkpointing in (False, True):
                yield case(
                    model, 2, batch=2, length=2048, checkpointing=checkpointing, adapters=adapters
                )
    for model in ("qwen2-7b", "qwen3-4b", "mistral-7b", "gemma2-2b"):
        yield case(model, 4, batch=4, length=512, adapters="lora", checkpointing=True)
        yield case(model, 4, batch=4, length=512, stack="bf16")
    for layers in (1, 2, 8):
        yield case("qwen2-0.5b", layers)
        yield case("qwen2-0.5b", layers, checkpointing=True, batch=8)


def _stacks() -> Iterator[Case]:
    for stack in ("foreach", "stock", "stock-amp", "adafactor"):
        yield case("qwen2-0.5b", 4, stack=stack)
        yield case("llama-1b", 3, stack=stack, checkpointing=True)
        yield case("llama-8b", 2, stack=stack, batch=4, length=512)
    for stack in ("stock", "bf16-adapters"):
        for model in ("qwen2-0.5b", "llama-8b"):
            yield case(model, 2, stack=stack, adapters="lora")
            yield case(model, 2, stack=stack, adapters="lora", checkpointing=True, batch=4)
    for model in ("qwen2-0.5b", "llama-1b"):
        for checkpointing in (False, True):
            yield case(model, 3, stack="eager", length=512, checkpointing=checkpointing)
            yield case(
                model, 3, stack="eager", length=512, checkpointing=checkpointing, adapters="lora"
            )


def _preferences() -> Iterator[Case]:
    for method in ("reward", "dpo", "kto"):
        for adapters in ("full", "lora"):
            for checkpointing in (False, True):
                same: dict[str, Any] = {"checkpointing": checkpointing, "adapters": adapters}
                yield case("qwen2-0.5b", 4, method, **same)
                yield case("llama-1b", 3, method, batch=4, length=512, **same)
        yield case("llama-8b", 2, method, accumulation=2)
        yield case("qwen3-4b", 2, method, stack="bf16")
    for checkpointing in (False, True):
        yield case(
            "qwen2-0.5b", 4, "dpo", checkpointing=checkpointing, precompute_ref_log_probs=True
        )
        yield case(
            "llama-1b", 3, "dpo", checkpointing=checkpointing, adapters="lora",
            precompute_ref_log_probs=True,
        )  # fmt: skip


def _online() -> Iterator[Case]:
    for adapters in ("full", "lora"):
        for checkpointing in (False, True):
            same: dict[str, Any] = {
                "checkpointing": checkpointing, "adapters": adapters, "prompt": 256, "length": 256,
                "accumulation": 2,
            }  # fmt: skip
            yield case("qwen2-0.5b", 4, "ppo", batch=4, roles=("reward_model",), **same)
            yield case("llama-1b", 3, "ppo", batch=4, roles=("reward_model",), **same)
            yield case("qwen2-0.5b", 4, "grpo", batch=4, **same)
            yield case("llama-1b", 3, "grpo", batch=8, **same)
            yield case("qwen2-0.5b", 4, "rloo", batch=4, **same)
        yield case(
            "qwen2-0.5b", 4, "ppo", batch=2, length=512, prompt=512, adapters=adapters,
            roles=("reward_model", "value_model"),
        )  # fmt: skip
        yield case(
            "qwen2-0.5b", 4, "grpo", batch=8, length=512, prompt=512, adapters=adapters, beta=0.04
        )
    yield case(
        "qwen2-0.5b", 4, "ppo", batch=2, length=512, prompt=512, kl_coef=0.0, num_mini_batches=2,
        roles=("reward_model",),
    )  # fmt: skip


def _mixtures() -> Iterator[Case]:
    for model in MIXTURES:
        for adapters in ("full", "lora"):
            for checkpointing in (False, True):
                yield case(model, 2, checkpointing=checkpointing, adapters=adapters)
    yield case("qwen3-30b-a3b", 2, batch=1, length=2048, adapters="lora", stack="bf16-adapters")
    yield case("qwen3-30b-a3b", 2, "dpo", length=512, adapters="lora", checkpointing=True)


def _families() -> Iterator[Case]:
    for model in OTHERS:
        yield case(model, 2)
        yield case(model, 2, adapters="lora")
        yield case(model, 2, adapters="lora", checkpointing=True, batch=4)


def _copies() -> Iterator[Case]:
    """Modules that train whole beside an adapter."""
    for adapters in ("lora-head", "lora-vocabulary", "lora-mlp"):
        yield case("qwen2-0.5b", 3, adapters=adapters)
        yield case("llama-1b", 2, adapters=adapters, checkpointing=True, batch=4, length=512)
    yield case("llama-1b", 2, "dpo", adapters="lora-head", length=512)
    yield case("qwen2-0.5b", 3, "sft", adapters="lora-vocabulary", accumulation=2)
