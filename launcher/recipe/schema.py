"""The recipe as JSON Schema: what `check` holds a document to, and what editors complete from."""

from __future__ import annotations

from typing import Any

from launcher.recipe.fields import fields, trl_version
from launcher.recipe.methods import ELSEWHERE, METHODS
from launcher.recipe.types import SCHEMA_VERSION
from launcher.recipe.values import MEMORY_HELP, NAME, RUN_NAME, SPAN_HELP, TIME_HELP

ROLES = tuple(dict.fromkeys(role for method in METHODS.values() for role in method.roles))


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


def _map(description: str, values: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": values,
        "propertyNames": {"pattern": NAME},
        "description": description,
    }


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": 4096, "description": description, **more}


def _count(description: str, minimum: int = 1) -> dict[str, Any]:
    return {"type": "integer", "minimum": minimum, "description": description}


def _auto(schema: dict[str, Any]) -> dict[str, Any]:
    """A choice of the machine's, which `auto` leaves to the plan."""
    described = {"description": schema["description"], "default": "auto"}
    return {"anyOf": [schema, {"enum": ["auto"]}], **described}


_MODEL = (
    "`stage:NAME`, a folder (`/…`, `./…`), a hub name (`NAME@REVISION` for another than `main`), or"
    " `model` for the recipe's own"
)

_KEEP = {"type": "array", "items": _text("A column"), "description": "The columns to read"}
_SHARE = {
    "type": "number",
    "exclusiveMinimum": 0,
    "maximum": 1,
    "default": 1,
    "description": "Share of the rows to take, at random",
}
_PART = _object(
    {
        "path": _text("A hub name, or a folder or .json, .jsonl, .csv or .parquet file"),
        "name": _text("The hub data set's configuration"),
        "split": _text("The split to train on", default="train"),
        "keep": _KEEP,
        "share": _SHARE,
    },
    "path",
)

_DATA = _object(
    {
        "path": _text("A hub name, or a folder or .json, .jsonl, .csv or .parquet file"),
        "name": _text("The hub data set's configuration"),
        "split": _text("The split to train on", default="train"),
        "eval_path": _text("Held-out rows, where they do not lie in `path`"),
        "eval_split": _text("The split of held-out rows"),
        "columns": {
            "type": "object",
            "additionalProperties": _text("The file's column"),
            "description": "TRL's column → the file's column",
        },
        "rows": _count("Rows to train on, for the plan's times"),
        "mean_tokens": _count("Mean tokens of a row's sequence, for the plan's times"),
        "max_prompt_tokens": _count("Longest prompt in tokens; longer rows are dropped"),
        "keep": _KEEP,
        "share": _SHARE,
        "also": {"type": "array", "items": _PART, "description": "Data sets that are mixed in"},
        "hold_out": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "Rows (below one: their share) to evaluate on instead of training",
        },
        "as_chat": {
            "type": "boolean",
            "default": False,
            "description": "Make a prompt of text a user's message",
        },
        "system_prompt": _text("The system message before each prompt; makes it a conversation"),
    },
    "path",
)

_PEFT = _object(
    {
        "method": {"enum": ["lora"], "default": "lora"},
        "r": _count("Rank"),
        "alpha": _count("Scale"),
        "dropout": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
        "targets": {
            "anyOf": [
                _text("`all-linear`, one name, or a pattern of whole paths"),
                {"type": "array", "items": _text("Name")},
            ],
            "description": "Modules that get an adapter",
            "default": "all-linear",
        },
        "modules_to_save": {"type": "array", "items": _text("Module trained whole")},
        "quantization": {
            "enum": ["nf4", "nf4-double", "int8"],
            "description": "How the frozen base is stored (QLoRA)",
        },
        "dora": {"type": "boolean", "description": "Weight-decomposed adapters", "default": False},
    }
)

_RESOURCES = _object(
    {
        "gpu": _auto(_text("A GPU type of the cluster profile", pattern=RUN_NAME, maxLength=64)),
        "gpus": _auto(_count("GPUs over all nodes (processes, on a CPU-only machine)")),
        "server_gpus": _auto(
            _count("GPUs of the vLLM server (`train.vllm_mode: server`), on top of `gpus`")
        ),
        "nodes": _auto(_count("Nodes")),
        "partition": _auto(_text("A partition", pattern=RUN_NAME, maxLength=64)),
        "time": _auto(_text("Time limit", **{"x-expected": TIME_HELP})),
        "zero_stage": _auto({"enum": [0, 1, 2, 3], "description": "DeepSpeed's ZeRO stage"}),
        "offload": _auto(
            {"enum": ["none", "optimizer", "all"], "description": "What moves to host memory"}
        ),
        "micro_batch": _auto(_count("Sequences of one forward pass on one process")),
        "gradient_checkpointing": _auto(
            {"type": "boolean", "description": "Recompute activations in the backward pass"}
        ),
        "cpus_per_task": _auto(_count("CPUs a GPU")),
        "host_memory": _auto(_text("Host memory a node", **{"x-expected": MEMORY_HELP})),
        "hang_timeout": _auto(
            _text(
                "Time without a sign of life amid steps after which a trainer is ended",
                **{"x-expected": SPAN_HELP},
            )
        ),
    }
)

_FUNCTION = "`file.py:function`, a name of the library or of TRL, or `package.module.function`"

_REWARD: dict[str, Any] = {
    "anyOf": [
        _text(f"{_FUNCTION}, or a reward model"),
        _object(
            {
                "function": _text(_FUNCTION),
                "model": _text("A reward model: `stage:NAME`, a folder or hub name"),
                "weight": {"type": "number", "default": 1.0, "description": "Its share"},
                "options": {
                    "type": "object",
                    "description": "Keywords of a function of the library or of TRL",
                },
            }
        ),
    ]
}

_SCORE: dict[str, Any] = {
    "anyOf": [
        _text(_FUNCTION),
        _object(
            {
                "function": _text(_FUNCTION),
                "options": {
                    "type": "object",
                    "description": "Keywords of a function of the library or of TRL",
                },
            },
            "function",
        ),
    ]
}

_FLAT: dict[str, Any] = {"anyOf": [_text("A file"), {"type": "object"}]}

_BOUND = _object(
    {
        "min": {"type": "number", "description": "Least that will do"},
        "max": {"type": "number", "description": "Most that will do"},
    }
)

_ENV = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number"], "maxLength": 4096},
    "description": "Variables of the training process",
}

_SHARED: dict[str, Any] = {
    "tokenizer": _text("Another model's tokenizer: a folder or hub name"),
    "chat_template": {
        "type": "string",
        "minLength": 1,
        "maxLength": 2**18,
        "description": "A chat template (Jinja) in place of the tokenizer's, or its .jinja file",
    },
    "dtype": {
        "enum": ["bfloat16", "float16", "float32"],
        "default": "bfloat16",
        "description": "Precision of compute; weights that train keep a float32 master",
    },
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1, "default": 42},
    "peft": _PEFT,
    "resources": _RESOURCES,
    "env": _ENV,
}

STAGE = _object(
    {
        "method": {
            "enum": list(METHODS),
            "description": "What the stage does",
            "x-not": ELSEWHERE,
        },
        "use": _text("A finished model that stands in for the stage: a folder or hub name"),
        **{role: _text(_MODEL) for role in ROLES},
        "candidates": _map("The models to compare: label → model", _text(_MODEL)),
        "baseline": _text("The candidate that win rates are against; the first without it"),
        "data": _DATA,
        "global_batch": _count(
            "Sequences (of PPO: completions) of one optimizer step over all processes"
        ),
        "train": {"type": "object", "description": "The method's own config, key for key"},
        "train_from": {
            "anyOf": [_FLAT, {"type": "array", "items": _FLAT}],
            "description": "Configs of `trl METHOD --config`, and accelerate's; this stage's own"
            " keys go first",
        },
        "scores": _map("What is measured of answers: label → score", _SCORE),
        "rewards": _map("What judges completions: label → judge", _REWARD),
        "gate": {
            "type": "object",
            "additionalProperties": _BOUND,
            "description": "Figure of the result → bounds, past which the chain stops",
        },
        "command": {
            "type": "array",
            "items": {"type": ["string", "number"]},
            "minItems": 1,
            "description": "A program and its arguments; {LABEL} is an input's folder, {out} the"
            " stage's own, {model} that of the model it gives",
        },
        "inputs": _map("Models that the program reads: label → model", _text(_MODEL)),
        "run": {
            "enum": ["once", "node", "task"],
            "default": "once",
            "description": "Copies of the program: one, one a node, or one a GPU",
        },
        "gives": {
            "enum": ["policy", "reward_model"],
            "description": "The model that the program leaves in {model}",
        },
        "needs": {
            "type": "array",
            "items": _text("A stage"),
            "description": "Stages to wait for beyond those whose models are used",
        },
        **_SHARED,
    },
    "method",
)

METHOD_WIDE = _object(
    {key: STAGE["properties"][key] for key in ("global_batch", "train", *_SHARED)},
)
"""What a recipe may say of every stage of a method: a size part's learning rates, for one."""

RECIPE = _object(
    {
        "launcher": {"enum": [SCHEMA_VERSION], "description": "The schema's version"},
        "name": _text("The run's name", pattern=RUN_NAME, maxLength=64),
        "model": _text("The model of every stage whose main role names none: a folder or hub name"),
        "shapes": {
            "type": "object",
            "additionalProperties": {"type": "object"},
            "description": "Hub name → keys of its config.json, for the plan, where neither the"
            " hub's cache nor the shipped table knows the model",
        },
        "methods": {
            **_object(dict.fromkeys(METHODS, METHOD_WIDE)),
            "description": "What every stage of a method takes, unless the stage says otherwise",
        },
        "stages": {
            "type": "object",
            "additionalProperties": STAGE,
            "propertyNames": {"pattern": NAME},
            "minProperties": 1,
            "description": "Stage → what it does; the order follows from references",
        },
        **_SHARED,
    },
    "launcher",
    "name",
    "stages",
)
"""What a merged document must be. `train` is held to its method's fields apart from this."""


def json_schema() -> dict[str, Any]:
    """The schema of a recipe file, for editors: with `extends`, the keys of `train:` by method, and
    null (which takes back what a parent said) wherever a value may stand. Nothing is required, for
    a part that another file extends need not be whole.
    """
    document: dict[str, Any] = _open(RECIPE)
    name = {"type": "string"}
    document["properties"]["extends"] = {
        "anyOf": [name, {"type": "array", "items": name}],
        "description": "Recipes below this one, left to right: built-in names or paths",
    }
    configured = [method.name for method in METHODS.values() if method.config is not None]
    wide = document["properties"]["methods"]["anyOf"][0]["properties"]
    for method in configured:
        block = wide[method]["anyOf"][0]
        block["properties"] = {**block["properties"], "train": {"$ref": f"#/$defs/{method}"}}
    stages = document["properties"]["stages"]["anyOf"][0]
    stage = stages["additionalProperties"]["anyOf"][0]
    stage["allOf"] = [
        {
            "if": {"properties": {"method": {"const": method}}, "required": ["method"]},
            "then": {"properties": {"train": {"$ref": f"#/$defs/{method}"}}},
        }
        for method in configured
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A recipe of launcher (TRL {trl_version()})",
        **document,
        "$defs": {
            method: {
                "type": ["object", "null"],
                "title": fields(method).config,
                "properties": {
                    key: _nullable(dict(s)) for key, s in fields(method).schemas.items()
                },
            }
            for method in configured
        },
    }


def _open(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with nothing required, and null beside every value of a mapping."""
    opened = {key: value for key, value in schema.items() if key != "required"}
    if "properties" in schema:
        opened["properties"] = {
            key: _nullable(_open(below)) for key, below in schema["properties"].items()
        }
    if isinstance(schema.get("additionalProperties"), dict):
        opened["additionalProperties"] = _nullable(_open(schema["additionalProperties"]))
    return opened


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") == "null" or "null" in schema.get("type", ()):
        return schema
    return {"anyOf": [schema, {"type": "null"}]}
