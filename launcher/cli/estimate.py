from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from launcher.cli import output, settings
from launcher.errors import UsageError
from launcher.memory.stack import Attention, Loss, Stack
from launcher.memory.types import Settings
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Dtype, Offload

if TYPE_CHECKING:
    from launcher.models.types import ModelShape
    from launcher.plan.sizing import Sized
    from launcher.plan.types import Plan
    from launcher.recipe.types import Recipe, Stage

NODE = 8
"""GPUs a node, where nothing says."""
OF_A_MODEL = {
    "method", "seq_len", "prompt_len", "peft", "lora_r", "quantization", "dtype", "optimizer",
}  # fmt: skip
"""Flags that say what a recipe says of itself."""
DTYPES = click.Choice(get_args(Dtype))


@click.command()
@click.argument("words", nargs=-1, metavar="[RECIPE] [KEY=VALUE]...")
@click.option("--stage", "only", help="Only this stage of the recipe.")
@settings.cluster_option
@click.option("--model", help="Instead of a recipe: a hub name, or a folder.")
@click.option(
    "--method", type=click.Choice([m for m in METHODS if m != "evaluate"]), default="sft",
    show_default=True, help="Of `--model`, or of a config of TRL in RECIPE's place.",
)  # fmt: skip
@click.option("--seq-len", type=click.IntRange(2), default=2048, show_default=True,
              help="Tokens of a sequence: prompt and completion.")  # fmt: skip
@click.option("--prompt-len", type=click.IntRange(1),
              help="Tokens of the prompt, of methods that generate (half).")  # fmt: skip
@click.option("--peft", type=click.Choice(["none", "lora", "qlora", "dora"]), default="none")
@click.option("--lora-r", type=click.IntRange(1), default=16, show_default=True)
@click.option("--quantization", type=click.Choice(["nf4", "nf4-double", "int8"]),
              help="Of an adapter's base (qlora: nf4).")  # fmt: skip
@click.option("--dtype", type=DTYPES, default="bfloat16", show_default=True)
@click.option("--optimizer", help="A name of transformers' `optim`.")
@click.option("--micro-batch", type=click.IntRange(1), help="Rows of a forward pass on a GPU.")
@click.option("--accumulation", type=click.IntRange(1), help="Forward passes of a step.")
@click.option("--gpus", type=click.IntRange(1), help="GPUs over all nodes.")
@click.option("--gpus-per-node", type=click.IntRange(1))
@click.option("--zero", type=click.IntRange(0, 3), help="DeepSpeed's ZeRO stage.")
@click.option("--offload", type=click.Choice(get_args(Offload)))
@click.option("--gradient-checkpointing/--no-gradient-checkpointing", default=None)
@click.option("--attention", type=click.Choice(get_args(Attention)))
@click.option("--loss", type=click.Choice(get_args(Loss)), help="What is made of the logits.")
@click.option("--weights", type=DTYPES, help="Storage of what trains, or of an adapter's base.")
@click.option("--adapters", type=DTYPES, help="Storage of adapters.")
@click.option("--autocast/--no-autocast", default=None)
@click.option("--trace", is_flag=True, help="Trace one step beside it (needs torch, no GPU).")
@settings.runs_option
@settings.json_option
def command(
    words: tuple[str, ...],
    only: str | None,
    cluster: str | None,
    model: str | None,
    trace: bool,
    runs: Path,
    as_json: bool,
    **flags: Any,
) -> None:
    """Show the memory that training takes, item by item: of RECIPE's stages as they are planned,
    or of `--model` under the flags.

    With `--gpus` and no cluster a recipe is not planned: the flags say how it runs. KEY=VALUE
    changes the recipe; after `--model` it is a key of the stage (`train.beta=0.04`).

    \b
    launcher estimate ppo_7b --cluster mixed
    launcher estimate --model Qwen/Qwen2.5-7B --peft qlora --micro-batch 4
    launcher estimate --model Qwen/Qwen2.5-72B --gpus 16 --zero 3 --micro-batch 1
    """
    from launcher.cli import estimate_text

    given = _given(flags)
    if model is not None:
        _check(given, only, flags)
        cases = _of_flags(model, words, flags)
    elif words:
        _check_recipe(given - {"method"})
        config = flags["method"] if "method" in given else None
        cases = _of_recipe(words[0], words[1:], only, cluster, runs, flags, config)
    else:
        raise UsageError(
            "there is nothing to estimate", hint="name a recipe (`ppo_7b`), or give `--model`"
        )
    python = _python(cluster) if trace else None
    traces = [_traced(case, python, flags) for case in cases] if python is not None else []
    if as_json:
        data = [estimate_text.as_data(case) for case in cases]
        for found, traced in zip(data, traces, strict=False):
            found["trace"] = estimate_text.trace_data(*traced)
        output.data("estimate", {"stages": data})
        return
    for number, case in enumerate(cases):
        output.text(("\n" if number else "") + estimate_text.render(case))
        if traces:
            output.text("\n" + estimate_text.render_trace(*traces[number]))


def _given(flags: Mapping[str, Any]) -> set[str]:
    """The flags that were typed, beside those that have a default."""
    context, typed = click.get_current_context(), click.core.ParameterSource.COMMANDLINE
    return {name for name in flags if context.get_parameter_source(name) is typed}


def _check_recipe(given: set[str]) -> None:
    for name in sorted(given & OF_A_MODEL):
        flag = name.replace("_", "-")
        raise UsageError(
            f"`--{flag}` goes with `--model`: a recipe says it by itself",
            hint="change the recipe by KEY=VALUE, such as `stages.sft.train.max_length=4096`",
        )


def _check(given: set[str], only: str | None, flags: Mapping[str, Any]) -> None:
    """Flags that would be passed over in silence."""
    if only is not None:
        raise UsageError("`--stage` is of a recipe, and there is a model", hint="leave it out")
    if "prompt_len" in given and not METHODS[flags["method"]].online:
        raise UsageError(
            f"{flags['method']} writes nothing, so `--prompt-len` divides nothing",
            hint="use `--seq-len` alone",
        )
    if "lora_r" in given and flags["peft"] == "none":
        raise UsageError("`--lora-r` is of an adapter", hint="add `--peft lora`")


def _of_flags(model: str, words: tuple[str, ...], flags: Mapping[str, Any]) -> list[Sized]:
    """The one stage that the flags describe, held to all that a recipe is held to."""
    from launcher.recipe.load import recipe_of

    name = flags["method"]
    document = {"launcher": 1, "name": "estimate", "stages": {name: _stage(model, flags)}}
    for word in words:
        if "=" not in word:
            raise UsageError(
                f"there is a recipe (`{word}`) and a model",
                hint="leave one out; `KEY=VALUE` sets a key of the stage",
            )
    overrides = [f"stages.{name}.{word}" for word in words]
    recipe = recipe_of(json.dumps(document), "the command line", overrides)
    recipe = replace(recipe, stages=tuple(replace(s, global_batch=None) for s in recipe.stages))
    return _by_flags(recipe, None, flags)


def _stage(model: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    method, length = METHODS[flags["method"]], flags["seq_len"]
    data: dict[str, Any] = {"path": "rows/of-any-kind"}
    train: dict[str, Any] = {}
    if method.online:
        data["max_prompt_tokens"] = prompt = flags["prompt_len"] or length // 2
        if prompt >= length:
            raise UsageError(f"a prompt of {prompt} tokens leaves none of {length} to write")
        if method.name == "online_dpo":
            train |= {"max_new_tokens": length - prompt, "max_length": length}
        else:
            train["max_completion_length"] = length - prompt
    else:
        train["max_length"] = length
    if flags["optimizer"]:
        train["optim"] = flags["optimizer"]
    folder = Path(model)
    reference = str(folder.resolve()) if folder.is_dir() else model
    return {
        "method": method.name,
        **dict.fromkeys(method.required_roles, reference),
        "data": data,
        "dtype": flags["dtype"],
        "train": train,
        # Whole groups of any size; what counts here is the micro-batch.
        "global_batch": 2**20 * 45,
        # A function, which takes no room on a GPU.
        **({"rewards": {"repetition": "repetition"}} if method.judged else {}),
        **({"peft": peft} if (peft := _peft(flags)) else {}),
    }


def _peft(flags: Mapping[str, Any]) -> dict[str, Any]:
    kind, quantization = flags["peft"], flags["quantization"]
    if kind == "none":
        if quantization is not None:
            raise UsageError(
                "only an adapter's base is quantized", hint="add `--peft lora`, or use `--dtype`"
            )
        return {}
    found: dict[str, Any] = {"r": flags["lora_r"]}
    if kind == "qlora" or quantization is not None:
        found["quantization"] = quantization or "nf4"
    return found | ({"dora": True} if kind == "dora" else {})


def _of_recipe(
    source: str,
    overrides: tuple[str, ...],
    only: str | None,
    cluster: str | None,
    runs: Path,
    flags: Mapping[str, Any],
    config: str | None,
) -> list[Sized]:
    """`config` is the method where `source` is a config of TRL."""
    if flags["gpus"] is not None and cluster is None and not source.endswith(".json"):
        from launcher.cli.trl_config import load

        return _by_flags(load(source, overrides, config, None), only, flags)
    from launcher.cli.prepare import prepare

    prepared = prepare(source, overrides, cluster, runs, method=config)
    return _planned(prepared.plan, prepared.recipe.get("shapes") or {}, only, flags)


def _by_flags(recipe: Recipe, only: str | None, flags: Mapping[str, Any]) -> list[Sized]:
    """Each stage as the flags say that it runs, nothing planned."""
    from launcher.models.find import shape_of
    from launcher.plan.roles import caching, role_shapes

    places = settings.places(recipe.shapes)
    look_up = caching(lambda reference: shape_of(reference, places))
    found = []
    for stage in recipe.stages:
        if stage.use is None and only in (None, stage.name):
            gpus = flags["gpus"] or 1
            base = Settings(
                processes=gpus,
                processes_per_node=min(gpus, NODE),
                gradient_checkpointing=METHODS[stage.method].trains,
            )
            found.append(_sized(stage, role_shapes(recipe, stage, look_up), base, flags))
    return _some(found, only, [stage.name for stage in recipe.stages])


def _planned(
    plan: Plan, stated: Mapping[str, Any], only: str | None, flags: Mapping[str, Any]
) -> list[Sized]:
    """Each stage under its plan, with the flags on top. The plan's own estimate and margin, which
    know of past runs, stand where no flag changes them."""
    from launcher.models.find import shape_of
    from launcher.plan.observe import settings_of
    from launcher.plan.roles import caching, role_shapes
    from launcher.recipe.types import Recipe

    recipe = Recipe(plan.name, tuple(planned.stage for planned in plan.stages), {})
    places = settings.places(stated)
    look_up = caching(lambda reference: shape_of(reference, places))
    found = []
    for planned in plan.stages:
        if planned.runs and only in (None, planned.name):
            shapes = role_shapes(recipe, planned.stage, look_up)
            base = settings_of(plan, planned)
            case = _sized(planned.stage, shapes, base, flags)
            if case.settings == base and not _changes(Stack, flags):
                case = replace(
                    case,
                    estimate=planned.estimate,
                    margin=planned.margin,
                    margin_reason=planned.calibration.margin,
                )
            found.append(case)
    return _some(found, only, [stage.name for stage in recipe.stages])


def _some(found: list[Sized], only: str | None, names: list[str]) -> list[Sized]:
    if not found:
        raise UsageError(
            f"there is no stage `{only}` to estimate" if only else "every stage is finished",
            hint="stages: " + ", ".join(names),
        )
    return found


def _sized(
    stage: Stage, shapes: Mapping[str, ModelShape], base: Settings, flags: Mapping[str, Any]
) -> Sized:
    from launcher.memory.stack import stack_of
    from launcher.plan.sizing import size

    named = {
        "processes": flags["gpus"],
        "processes_per_node": flags["gpus_per_node"],
        "zero_stage": flags["zero"],
    }
    changes = {key: value for key, value in named.items() if value is not None}
    under = replace(base, **_changes(Settings, flags), **changes)
    if flags["accumulation"] is None and stage.global_batch is None:
        under = replace(under, accumulation=_whole_groups(stage, under))
    return size(stage, shapes, under, replace(stack_of(stage, under), **_changes(Stack, flags)))


def _changes(kind: type, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that bear the name of a field of `kind`, and are given."""
    ours = {field.name for field in fields(kind)} - {"optimizer"}
    return {key: value for key, value in flags.items() if key in ours and value is not None}


def _whole_groups(stage: Stage, under: Settings) -> int:
    """The fewest forward passes whose completions are whole groups."""
    from math import lcm

    from launcher.recipe.fields import fields as keys

    schema = keys(stage.method).schemas.get("num_generations")
    group = int(stage.train.get("num_generations") or schema["default"]) if schema else 1
    one = under.micro_batch * under.processes
    return lcm(one, group) // one


def _python(cluster: str | None) -> str:
    import sys

    return (settings.cluster(cluster).python if cluster is not None else None) or sys.executable


def _traced(case: Sized, python: str, flags: Mapping[str, Any]) -> tuple[Sized, Mapping[str, Any]]:
    """A trace of one process beside what the formula says of the same."""
    import msgspec

    from launcher.memory.stack import stack_of
    from launcher.models.config import config_of
    from launcher.plan.sizing import size
    from launcher.scheduler import shell

    alone = replace(case.settings, processes=1, processes_per_node=1, zero_stage=0, offload="none")
    stack = replace(stack_of(case.stage, alone), **_changes(Stack, flags))
    stack = replace(stack, padded=False)  # traced rows are equally long
    compared = size(case.stage, case.shapes, alone, stack)
    request = {
        "stage": case.stage,
        "configs": {role: config_of(shape) for role, shape in case.shapes.items()},
        "settings": alone,
        "stack": compared.stack,
    }
    text = msgspec.json.encode({"stages": [request]}).decode()
    output.note(f"tracing {case.stage.name} (seconds to a minute) …")
    try:
        answer = shell.converse([python, "-m", "launcher.worker.trace"], text)
    except shell.CommandFailed as error:
        if "No module named" not in error.message:
            raise
        raise UsageError(
            f"{python} has no training environment: {error.message}",
            hint="run it where the trainings run, or name its `python` in the cluster's profile",
        ) from error
    found: Mapping[str, Any] = json.loads(answer)
    return compared, {**found["stages"][0], "versions": found["versions"]}
