"""Keys that a TRL YAML may hold and a stage's `train:` may not, each with the right way."""

from __future__ import annotations

from collections.abc import Mapping

_RUN_FOLDER = "results go into the run's folder"
_ZERO = "the plan writes it; `resources.zero_stage` and `resources.offload` pin the choice"
_DTYPE = "use the stage's `dtype`"
_CHECKPOINTING = "use `resources.gradient_checkpointing`"
_RESUME = "the launcher resumes by itself"
_CODE = "a model's own code runs only where `launcher submit --trust-remote-code` says so"
_HUB = "jobs upload nothing; upload the finished model from the run's folder"
_TRACKER = "metrics go into the run's folder"
_NODES = "the launcher sets it from the job's allocation"
_SERVER = "the launcher starts the stage's vLLM server and says where it is"
_DATA = "use the stage's `data`"
_PEFT = "use the stage's `peft`"
_QUANTIZATION = "use `peft.quantization` (`nf4`, `nf4-double`, `int8`)"

BATCH_KEYS = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""A pasted pair is turned into `global_batch` where the stage states none."""

OWNED: Mapping[str, str] = {
    "output_dir": _RUN_FOLDER,
    "logging_dir": _RUN_FOLDER,
    "overwrite_output_dir": _RUN_FOLDER,
    "per_device_train_batch_size": "use `resources.micro_batch`",
    "gradient_accumulation_steps": "use `global_batch`; the plan divides it",
    "per_device_eval_batch_size": "use `resources.micro_batch`",
    "auto_find_batch_size": "use `resources.micro_batch`, or leave the choice to the plan",
    "gradient_checkpointing": _CHECKPOINTING,
    "gradient_checkpointing_kwargs": _CHECKPOINTING,
    "activation_checkpointing": _CHECKPOINTING,
    "activation_checkpointing_kwargs": _CHECKPOINTING,
    "bf16": _DTYPE,
    "fp16": _DTYPE,
    "dtype": _DTYPE,
    "torch_dtype": _DTYPE,
    "seed": "use the stage's `seed`",
    "use_cpu": "the cluster profile says what trainings compute on (`device`)",
    "no_cuda": "the cluster profile says what trainings compute on (`device`)",
    "deepspeed": _ZERO,
    "fsdp": _ZERO,
    "fsdp_config": _ZERO,
    "accelerator_config": _ZERO,
    "parallelism_config": _ZERO,
    "resume_from_checkpoint": _RESUME,
    "restore_callback_states_from_checkpoint": _RESUME,
    "ignore_data_skip": _RESUME,
    "enable_jit_checkpoint": _RESUME,
    "save_only_model": "a checkpoint without optimizer states cannot be resumed",
    "save_on_each_node": "runs lie on a shared file system",
    "local_rank": _NODES,
    "ddp_backend": _NODES,
    "ddp_find_unused_parameters": _NODES,
    "log_on_each_node": _NODES,
    "vllm_server_base_url": _SERVER,
    "vllm_server_host": _SERVER,
    "vllm_server_port": _SERVER,
    "vllm_group_port": _SERVER,
    "do_train": "the stage's `method` says what runs",
    "do_eval": "use `eval_strategy`",
    "do_predict": "use a stage with `method: evaluate`",
    "push_to_hub": _HUB,
    "hub_token": "tokens never stand in a recipe",
    "hub_private_repo": _HUB,
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "hub_always_push": _HUB,
    "hub_revision": _HUB,
    "log_completions_hub_repo": _HUB,
    "report_to": _TRACKER,
    "disable_tqdm": _TRACKER,
    "project": _TRACKER,
    "trackio_space_id": _TRACKER,
    "trackio_bucket_id": _TRACKER,
    "trackio_static_space_id": _TRACKER,
    "trust_remote_code": _CODE,
    "model_name_or_path": "use the stage's `model` (or `policy`)",
    "tokenizer": "use the stage's `tokenizer`",
    "processing_class": "use the stage's `tokenizer`",
    "reward_model_path": "use the stage's `reward_model`",
    "reward_funcs": "use the stage's `rewards`",
    "reward_weights": "use `weight` of each of the stage's `rewards`",
    "sft_model_path": "use the stage's `policy`",
    "dataset_name": _DATA,
    "dataset_config": _DATA,
    "dataset_train_split": _DATA,
    "dataset_test_split": _DATA,
    "max_prompt_length": "use `data.max_prompt_tokens`",
    "use_peft": _PEFT,
    "lora_r": _PEFT,
    "lora_alpha": _PEFT,
    "lora_dropout": _PEFT,
    "lora_target_modules": _PEFT,
    "lora_modules_to_save": _PEFT,
    "lora_task_type": "the launcher sets it by method",
    "group_by_length": "use `train_sampling_strategy: group_by_length`",
    "load_in_4bit": _QUANTIZATION,
    "load_in_8bit": _QUANTIZATION,
}
"""Key → the way out."""

OWNED_MODEL_ARGUMENTS: Mapping[str, str] = {
    "dtype": _DTYPE,
    "torch_dtype": _DTYPE,
    "trust_remote_code": _CODE,
    "device_map": _NODES,
    "quantization_config": _QUANTIZATION,
    "token": "tokens never stand in a recipe",
}
"""The same within `model_init_kwargs`."""
