"""The data of a config: TRL's `dataset_*` and `datasets`, and the keys that the alignment handbook
and open-r1 have of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from launcher.recipe.document import Node
from launcher.recipe.problems import join, show, suggest
from launcher.recipe.trl_yaml.flat import Flat, built

_PART_KEYS = ("path", "id", "name", "config", "split", "columns", "weight", "fraction",
              "data_files", "data_dir")  # fmt: skip
_COLUMNS = {"messages", "prompt", "completion", "text", "chosen", "rejected", "label"}
_ALL_KEYS = (
    "dataset_name", "dataset_config", "dataset_config_name", "dataset_train_split",
    "dataset_test_split", "dataset_split", "dataset_mixer", "dataset_splits", "dataset_configs",
    "dataset_mixture", "datasets", "test_split_size", "dataset_streaming",
)  # fmt: skip


def take(flat: Flat) -> None:
    """The stage's `data`."""
    for key in ("dataset_streaming", "streaming"):
        flat.leave_out(key, "rows are read whole, so that a run can be resumed")
    flat.leave_out("preprocessing_num_workers", "rows are prepared where the trainer reads them")
    _prompts(flat)
    if flat.says("data.path"):
        for key in _ALL_KEYS:
            flat.left.pop(key, None)
        return
    for key, read in (
        ("dataset_mixture", _mixture),
        ("datasets", _datasets),
        ("dataset_mixer", _mixer),
    ):
        node = flat.take(key)
        if node is not None:
            read(flat, node, key)
            for beside in ("dataset_name", "dataset_config", "dataset_train_split"):
                flat.leave_out(beside, f"`{key}` is given, which goes first")
            break
    else:
        _one(flat)
    _held_out(flat)


def _one(flat: Flat) -> None:
    name = flat.take("dataset_name")
    config = flat.take("dataset_config") or flat.take("dataset_config_name")
    split = flat.take("dataset_train_split") or flat.take("dataset_split")
    several = flat.take("dataset_configs")
    if several is not None and isinstance(several.value, list) and config is None:
        config = several.value[0] if several.value else None
        if len(several.value) > 1:
            text = "one data set has one configuration here; list the others in `data.also`"
            flat.wrong(several, "dataset_configs", text)
    if name is not None:
        flat.give("data.path", flat.local(name))
        flat.give("data.name", config)
        flat.give("data.split", split)


def _mixture(flat: Flat, node: Node, key: str) -> None:
    """The alignment handbook's: `{datasets: [{id, config, split, columns, weight}], …}`."""
    inner = dict(node.items)
    parts = inner.pop("datasets", None)
    size, seed = inner.pop("test_split_size", None), inner.pop("seed", None)
    if seed is not None and seed.value is not None:
        flat.leave_out(f"{key}.seed", "rows are shuffled by the stage's `seed`", seed)
    for other, entry in inner.items():
        near = suggest(other, ("datasets", "seed", "test_split_size"))
        flat.wrong(entry, join(key, other), f"unknown key{near}")
    flat.give("data.hold_out", size if size is not None and size.value is not None else None)
    _parts(flat, parts if parts is not None else node, f"{key}.datasets")


def _datasets(flat: Flat, node: Node, key: str) -> None:
    """TRL's own list of data sets."""
    flat.give("data.hold_out", flat.take("test_split_size"))
    _parts(flat, node, key)


def _mixer(flat: Flat, node: Node, key: str) -> None:
    """The alignment handbook's first form: `{NAME: share}`, with `dataset_splits` for all."""
    splits, configs = flat.take("dataset_splits"), flat.take("dataset_configs")
    names = splits.value if splits is not None and isinstance(splits.value, list) else []
    wide = configs.value if configs is not None and isinstance(configs.value, list) else []
    train = next((item for item in names if str(item.value).startswith("train")), None)
    test = next((item for item in names if str(item.value).startswith("test")), None)
    shuffled = flat.flag("shuffle_train_dataset")
    del shuffled  # they always are
    for index, (name, share) in enumerate(node.items.items()):
        part: dict[str, Any] = {"path": flat.local(replace(share, value=name))}
        if train is not None:
            part["split"] = train
        if index < len(wide):
            part["name"] = wide[index]
        if share.value != 1:
            part["share"] = share
        _add(flat, part, share)
    if test is not None and "dataset_test_split" not in flat.left:
        flat.left["dataset_test_split"] = test


def _parts(flat: Flat, node: Node, key: str) -> None:
    if not isinstance(node.value, list) or not node.value:
        flat.wrong(node, key, "a list of data sets, each a mapping with its `path`")
        return
    for index, item in enumerate(node.value):
        at = f"{key}[{index}]"
        for other, entry in item.items.items():
            if other not in _PART_KEYS:
                flat.wrong(entry, join(at, other), f"unknown key{suggest(other, _PART_KEYS)}")
        path = item.get("data_files") or item.get("id") or item.get("path")
        if path is None or not isinstance(path.value, str):
            flat.wrong(item if path is None else path, at, "one `path` is needed: a name or a file")
            continue
        share = item.get("weight")
        part: dict[str, Any] = {"path": flat.local(path)}
        for ours, theirs in (("name", "config"), ("name", "name"), ("split", "split")):
            if item.get(theirs) is not None:
                part[ours] = item.get(theirs)
        # `default` is what a data set without configurations has; files and folders take none.
        if "name" in part and part["name"].value == "default":
            del part["name"]
        if item.get("columns") is not None:
            part["keep"] = item.get("columns")
        if share is not None and share.value != 1:
            part["share"] = share
        for key_, way in (
            ("fraction", "say the `share` of each data set's rows in `data` instead"),
            ("data_dir", "name the folder as `path`"),
        ):
            wrong = item.get(key_)
            if wrong is not None:
                flat.wrong(wrong, f"{at}.{key_}", f"not taken: {way}")
        _add(flat, part, item)


def _add(flat: Flat, part: dict[str, Any], like: Node) -> None:
    """The first data set is the stage's, the others are mixed in."""
    data = flat.stage.setdefault("data", {})
    if "path" in data:
        also = data.setdefault("also", Node([], like.place, like.key_place))
        data["also"] = replace(also, value=[*also.value, built(part, like)], size=also.size + 8)
    else:
        data.update(part)


def _held_out(flat: Flat) -> None:
    """TRL evaluates on `dataset_test_split` where `eval_strategy` says that it evaluates."""
    test = flat.take("dataset_test_split")
    strategy = flat.left.get("eval_strategy") or flat.left.get("evaluation_strategy")
    evaluates = strategy is not None and strategy.value not in (None, "no")
    data = flat.stage.get("data", {})
    if not evaluates or "path" not in data or "hold_out" in data or strategy is None:
        return
    if flat.says("data.eval_path") or flat.says("data.eval_split") or flat.says("data.hold_out"):
        return
    if test is None:
        text = "evaluates on the split `test`, as TRL does where `dataset_test_split` is not said"
        flat.note(strategy, "eval_strategy", text)
    flat.give_or("data.eval_split", test, strategy, "test")


def _prompts(flat: Flat) -> None:
    """Columns under other names, and prompts of text that become conversations."""
    column, system = flat.take("dataset_prompt_column"), flat.take("system_prompt")
    online = flat.method.columns == (("prompt",),)
    if column is not None:
        if column.value != "prompt":
            flat.give("data.columns.prompt", column)
        if online:
            flat.give("data.as_chat", column, True)
            text = "prompts become conversations of one user's message, as open-r1 has it"
            flat.note(column, "dataset_prompt_column", text)
    if system is not None and online:
        flat.give("data.system_prompt", system)
    elif system is not None:
        flat.leave_out("system_prompt", "open-r1 uses it for benchmarks alone", system)
    text_field = flat.left.get("dataset_text_field")
    if text_field is not None and flat.method.name == "sft":
        del flat.left["dataset_text_field"]
        if isinstance(text_field.value, str) and text_field.value not in _COLUMNS:
            flat.give("data.columns.text", text_field)
    elif text_field is not None:
        flat.leave_out("dataset_text_field", f"{flat.method.name} reads columns of fixed names")
    longest = flat.left.get("max_prompt_length")
    if longest is not None and online:
        del flat.left["max_prompt_length"]
        if longest.value is not None:
            flat.give("data.max_prompt_tokens", longest)
            text = f"gone from TRL, taken as `data.max_prompt_tokens: {show(longest.value)}`: "
            flat.note(longest, "max_prompt_length", text + "longer prompts are dropped, not cut")
