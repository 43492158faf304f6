"""One stage of a checked document → a `Stage`, with all that a schema cannot say checked."""

from __future__ import annotations

from dataclasses import replace

from launcher.recipe import offline, online, paths, train, vllm
from launcher.recipe.commands import command
from launcher.recipe.datasets import data as read_data
from launcher.recipe.datasets import judged_columns
from launcher.recipe.document import Node
from launcher.recipe.fields import fields
from launcher.recipe.gates import gate
from launcher.recipe.methods import METHODS, Method
from launcher.recipe.reading import Reading
from launcher.recipe.references import baseline, candidates, models, needs
from launcher.recipe.rewards import rewards, scores
from launcher.recipe.settings import env, peft, resources, shared, value
from launcher.recipe.types import Data, Stage

_TEMPLATE = "chat_template_path"
ONLY_EVALUATE = ("candidates", "baseline", "scores")


def stage(reading: Reading, name: str) -> Stage | None:
    """The stage called `name`; None where its method is not known."""
    node, at = reading.stages[name], f"stages.{name}"
    method_node = node.get("method")
    if method_node is None:
        return None
    method = METHODS[str(method_node.value)]
    for key in ONLY_EVALUATE:
        given = node.get(key)
        if given is not None and method.name != "evaluate":
            reading.wrong_key(given, f"{at}.{key}", "only a stage with `method: evaluate` takes it")
    roles = models(reading, node, at, method)
    labels = candidates(reading, node, at, method)
    data = read_data(reading, node, at, method)
    answers = judged_columns(data, method)
    judges = rewards(reading, node, at, method, answers)
    program = command(reading, node, at, method)
    references = [*roles.values(), *labels.values()]
    references += [reward.model for reward in judges if reward.model is not None]
    references += program.inputs.values() if program is not None else ()
    upstream = needs(reading, node, at, references)
    use = reading.path(node.get("use"), f"{at}.use", paths.model)
    pins = resources(reading, node, at)
    adapter = peft(reading, node, at, method)
    block = _with_template(reading, node, at, train.read(reading, node, at, method.name))
    _check_evaluation(reading, node, at, block, data)
    batch = _global_batch(reading, node, at, method, block, pins.gpus or 1)
    _check_groups(reading, node, at, method, block, batch)
    vllm.check(reading, node, at, block.values, adapter)
    offline.check(reading, node, at, method.name, block.values, adapter)
    online.check(reading, node, at, block.values)
    tokenizer = shared(reading, node, "tokenizer")
    found = Stage(
        name=name,
        method=method.name,
        models=roles,
        candidates=labels,
        baseline=baseline(reading, node, at),
        tokenizer=reading.path(tokenizer, f"{at}.tokenizer", paths.tokenizer),
        chat_template=reading.path(
            shared(reading, node, "chat_template"), f"{at}.chat_template", paths.template
        ),
        dtype=value(reading, node, "dtype", "bfloat16"),
        seed=value(reading, node, "seed", 42),
        data=data,
        peft=adapter,
        global_batch=batch,
        train=block.values,
        scores=scores(reading, node, at, answers),
        rewards=judges,
        command=program,
        resources=pins,
        env=env(reading, node, at),
        needs=() if use else upstream,
        use=use,
    )
    return replace(found, gate=gate(reading, node, at, found))


def _with_template(reading: Reading, node: Node, at: str, block: train.Train) -> train.Train:
    """`block` with the absolute path of a chat template that TRL is to read."""
    inner = node.get("train")
    given = inner.get(_TEMPLATE) if inner is not None and block.values.get(_TEMPLATE) else None
    found = reading.path(given, f"{at}.train.{_TEMPLATE}", paths.template_path)
    return block if found is None else replace(block, values={**block.values, _TEMPLATE: found})


def _global_batch(
    reading: Reading, node: Node, at: str, method: Method, block: train.Train, gpus: int
) -> int | None:
    """Sequences of one optimizer step: as stated, else from a pasted per-device batch."""
    key, given = f"{at}.global_batch", node.get("global_batch")
    if method.config is None or method.result == "report":
        if given is not None:
            text = f"{method.name} takes no optimizer step; use `resources.micro_batch`"
            reading.wrong_key(given, key, text)
        return None
    if given is not None:
        assert isinstance(given.value, int)
        return given.value
    if block.sequences is not None:
        derived = block.sequences * gpus
        plural = "s" if gpus > 1 else ""
        reading.warnings.append(
            f"{node.items['train'].key_place} {at}.train: per-device batch × accumulation on "
            f"{gpus} GPU{plural} taken as `global_batch: {derived}`; state that instead"
        )
        return derived
    if node.get("use") is None and not block.pasted:
        unit = "completions" if method.online else "sequences"
        text = f"state the {unit} of one optimizer step over all GPUs, such as 128"
        reading.missing(node, key, text)
    return None


def _check_groups(
    reading: Reading, node: Node, at: str, method: Method, block: train.Train, batch: int | None
) -> None:
    """Methods that compare the completions of a prompt want whole groups in what is generated, and
    whole optimizer steps of it."""
    schema = fields(method.name).schemas.get("num_generations")
    if schema is None or batch is None:
        return
    inner, key = node.items.get("train", node), f"{at}.train.generation_batch_size"
    if block.values.get("steps_per_generation") is not None:
        text = "not a key of `train` here: it counts micro-batches, which the plan chooses; state"
        text += f" `generation_batch_size`, the completions of one rollout, a multiple of {batch}"
        steps = inner.get("steps_per_generation") or inner
        reading.wrong_key(steps, f"{at}.train.steps_per_generation", text)
        return
    group = block.values.get("num_generations") or schema["default"]
    rollout = block.values.get("generation_batch_size")
    stated = inner.get("generation_batch_size") or inner
    if rollout is None:
        rollout, stated = batch, node.get("global_batch") or node
        key = f"{at}.global_batch"
    elif rollout % batch:
        text = f"a rollout of {rollout} completions is no whole number of steps of {batch}"
        text += " (`global_batch`)"
        reading.wrong(stated, key, f"{text}; set {-(-rollout // batch) * batch}")
        return
    if rollout % group:
        below, above = rollout // group * group, -(-rollout // group) * group
        near = f"{below} or {above}" if below else str(above)
        text = f"{rollout} completions are no whole groups of {group} (`train.num_generations`)"
        reading.wrong(stated, key, f"{text}; set {near}")


def _check_evaluation(
    reading: Reading, node: Node, at: str, block: train.Train, data: Data | None
) -> None:
    strategy = block.values.get("eval_strategy", "no")
    if strategy != "no" and str(node.items["method"].value) == "online_dpo":
        text = "OnlineDPOTrainer cannot evaluate; add a stage with `method: evaluate`"
        given = node.items["train"].get("eval_strategy")
        reading.wrong_key(given or node, f"{at}.train.eval_strategy", text)
        return
    held_out = data and (data.eval_path or data.eval_split or data.hold_out)
    if strategy != "no" and data and not held_out:
        text = "there are no held-out rows; give `data.eval_path`, `eval_split` or `hold_out`"
        reading.missing(node, f"{at}.data.eval_split", text)
