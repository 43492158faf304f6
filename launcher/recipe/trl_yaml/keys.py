"""What tells a config of TRL from a recipe: by itself, since every recipe is asked."""

from __future__ import annotations

TAKEN = (
    "model_name_or_path", "model_revision", "torch_dtype", "dtype", "attn_implementation",
    "trust_remote_code", "use_peft", "lora_r", "lora_alpha", "lora_dropout",
    "lora_target_modules", "lora_modules_to_save", "load_in_4bit", "load_in_8bit", "use_dora",
    "use_rslora", "bnb_4bit_quant_type", "use_bnb_nested_quant", "dataset_name", "dataset_config",
    "dataset_train_split", "dataset_test_split", "datasets", "dataset_mixture", "dataset_mixer",
    "dataset_splits", "reward_funcs", "reward_weights", "chat_template", "system_prompt",
    "per_device_train_batch_size", "gradient_accumulation_steps", "seed", "bf16", "fp16", "env",
    "max_prompt_length", "reward_model_path", "sft_model_path",
)  # fmt: skip
"""Keys that become something of the stage beside `train`, for did-you-mean and for telling a config
of TRL from a recipe."""
