"""The models of a config, how they are loaded, and in which precision they train."""

from __future__ import annotations

from dataclasses import replace

from launcher.recipe.document import Node
from launcher.recipe.problems import show
from launcher.recipe.trl_yaml.flat import Flat

_DTYPES = ("bfloat16", "float16", "float32")


def take(flat: Flat) -> None:
    """Models, tokenizer, chat template and precision."""
    _models(flat)
    _dtype(flat)
    tokenizer = flat.take("tokenizer_name_or_path") or flat.take("tokenizer_name")
    tokenizer = tokenizer or flat.take("tokenizer") or flat.take("processing_class")
    if tokenizer is not None:
        flat.give("tokenizer", flat.local(tokenizer))
    flat.give("chat_template", flat.take("chat_template"))
    if flat.method.name not in ("sft", "reward"):
        path = flat.take("chat_template_path")
        if path is not None and str(path.value).endswith((".jinja", ".j2")):
            flat.give("chat_template", flat.local(path))
        elif path is not None:
            text = f"{flat.method.name} takes no other model's template; give its .jinja file"
            flat.wrong(path, "chat_template_path", text)
    else:
        path = flat.take("chat_template_path")
        if path is not None:
            flat.give("train.chat_template_path", flat.local(path))
    attention, flash = flat.take("attn_implementation"), flat.left.get("use_flash_attention_2")
    if flat.flag("use_flash_attention_2") and flash is not None and attention is None:
        attention = replace(flash, value="flash_attention_2")
        text = "now `attn_implementation: flash_attention_2`, taken as that"
        flat.note(flash, "use_flash_attention_2", text)
    if attention is not None:
        flat.give("train.model_init_kwargs.attn_implementation", attention)
    flat.leave_out(
        "trust_remote_code", "a model's own code runs only where `--trust-remote-code` says so"
    )


def _models(flat: Flat) -> None:
    role, roles = flat.method.main_role, flat.method.roles
    model, revision = flat.take("model_name_or_path"), flat.take("model_revision")
    # TRL's PPO took the tokenizer from `model_name_or_path` and the policy from here.
    model = flat.take("sft_model_path") or model
    if not flat.says(role):
        if model is not None:
            model = flat.local(model)
            flat.give(role, model if revision is None else _at(flat, model, revision))
        elif revision is not None and revision.value != "main":
            text = f"of no model; name the stage's `{role}` NAME@{revision.value}"
            flat.wrong(revision, "model_revision", text)
    reward = flat.take("reward_model_path") or flat.take("reward_model_name_or_path")
    if reward is not None and "reward_model" in roles:
        if not flat.says("reward_model"):
            flat.give("reward_model", flat.local(reward))
    elif reward is not None:
        flat.wrong(reward, "reward_model_path", f"{flat.method.name} takes no reward model")
    reference = flat.take("ref_model_name_or_path") or flat.take("ref_model")
    if reference is not None and "reference" in roles:
        flat.give("reference", flat.local(reference))
    elif reference is not None:
        flat.wrong(reference, "ref_model_name_or_path", f"{flat.method.name} takes no reference")


def _at(flat: Flat, model: Node, revision: Node) -> Node:
    """`model` at its revision, as a recipe names it."""
    if revision.value == "main":
        return model
    if str(model.value).startswith(("/", "~", "./", "../")):
        flat.leave_out("model_revision", "a folder has no revisions", revision)
        return model
    if flat.left.get("reward_model_path") is not None:
        # TRL's scripts loaded both at it, whatever repositories they are of.
        text = f"is it of `{flat.method.main_role}`, or of `reward_model` too? Name them in the"
        flat.wrong(revision, "model_revision", f"{text} recipe, as NAME@{revision.value}")
        return model
    return replace(model, value=f"{model.value}@{revision.value}")


def _dtype(flat: Flat) -> None:
    """TRL loads in `dtype` and computes in `bf16` or `fp16`; a stage's `dtype` is what it computes
    in, over a float32 master."""
    old = flat.left.get("torch_dtype")
    if old is not None and old.value is not None and flat.left.get("dtype") is None:
        flat.note(old, "torch_dtype", "now called dtype, taken as the stage's `dtype`")
    loaded = flat.take("torch_dtype")
    loaded = flat.take("dtype") or loaded
    half = {name: flat.left.get(name) for name in ("bf16", "fp16")}
    bf16, fp16 = flat.flag("bf16"), flat.flag("fp16")
    for name in ("bf16_full_eval", "fp16_full_eval"):
        flat.leave_out(name, "evaluation has the stage's `dtype`")
    if bf16 and fp16:
        node = half["fp16"]
        assert node is not None
        flat.wrong(node, "fp16", "bf16 is true too; keep one")
        return
    if loaded is not None and loaded.value not in (*_DTYPES, "auto"):
        text = f"got {show(loaded.value)}, expected one of {', '.join(_DTYPES)} or auto"
        flat.wrong(loaded, "dtype", text)
        return
    for name, asked, value in (("bf16", bf16, "bfloat16"), ("fp16", fp16, "float16")):
        if asked:
            _say(flat, half[name], value)
            return
    if loaded is not None and loaded.value != "auto":
        # TRL's default for `bf16` is true, so a float32 here is of the weights alone.
        if loaded.value != "float32" or bf16 is False:
            _say(flat, loaded, str(loaded.value))
    elif bf16 is False:
        _say(flat, half["bf16"], "float32")


def _say(flat: Flat, node: Node | None, value: str) -> None:
    if node is not None:
        flat.give("dtype", replace(node, value=value))
