"""Whether models, tokenizers and data of a recipe go together, as far as their files tell. Pure.

It says before a job is queued what a worker would say after hours of waiting, and what no worker
says at all. Where nothing is known (a name whose files are not here) it says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from launcher.models.types import Tokenizer
from launcher.plan.chats import as_messages, beside_chats, is_chat, repeated, turns_of
from launcher.recipe.fields import marked_templates
from launcher.recipe.methods import METHODS
from launcher.recipe.types import Recipe, Stage, stage_of

PADS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<|vision_pad|>", "<|endoftext|>",
        "<unk>")  # fmt: skip
"""Tokens that families keep for padding, in the order in which a worker tries them where a
tokenizer pads with its end token."""

ADDED = 0.9
"""The share of tokens that a model knows of another's which may have had some added."""

_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|END_OF_TURN_TOKEN|>")
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_CHATS = ("messages", "prompt", "completion", "chosen", "rejected")

TokenizerOf = Callable[[str], Tokenizer | None]
"""A folder or hub name → its tokenizer; None where nothing is known."""
RowOf = Callable[[str], Mapping[str, Any] | None]
"""A data file → its first row; None where that cannot be told."""
TextOf = Callable[[str], str | None]
"""A chat template's file → its text."""


@dataclass(frozen=True)
class Finding:
    """Something that does not go together."""

    key: str
    """The dotted path in the recipe."""
    text: str
    """What, and the way out."""
    fatal: bool = True
    """Whether the stage could not run; else it would, and not as one may think."""

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"


def findings(
    recipe: Recipe, tokenizer_of: TokenizerOf, row_of: RowOf, text_of: TextOf
) -> list[Finding]:
    """Everything that does not go together, stage by stage."""
    known = _Known(recipe, tokenizer_of, text_of)
    return [
        finding
        for stage in recipe.stages
        if stage.use is None and stage.method != "command"
        for finding in _of_stage(stage, known, row_of)
    ]


class _Known:
    """The tokenizers of a recipe's stages and models, each read once."""

    def __init__(self, recipe: Recipe, tokenizer_of: TokenizerOf, text_of: TextOf) -> None:
        self._recipe, self._look_up, self._text_of = recipe, tokenizer_of, text_of
        self._read: dict[str, Tokenizer | None] = {}

    def of(self, reference: str) -> Tokenizer | None:
        """The tokenizer beside a model; that of a stage is what it will leave there."""
        if reference not in self._read:
            upstream = stage_of(reference)
            self._read[reference] = (
                self._look_up(reference)
                if upstream is None
                else self.of_stage(self._recipe.stage(upstream))
            )
        return self._read[reference]

    def stage(self, name: str) -> Stage:
        return self._recipe.stage(name)

    def of_stage(self, stage: Stage) -> Tokenizer | None:
        """The tokenizer that a stage trains with and leaves beside its model."""
        if stage.use is not None:
            return self.of(stage.use)
        main = stage.models.get(METHODS[stage.method].main_role)
        if main is None and stage.candidates:
            main = next(iter(stage.candidates.values()))
        own = self.of(stage.tokenizer) if stage.tokenizer else None
        beside = self.of(main) if main is not None else None
        found = own if stage.tokenizer else beside
        if found is None:
            return None
        # Rows and stops are the model's, whoever's tokens it is given.
        found = replace(
            found,
            rows=beside.rows if beside is not None else None,
            stops=beside.stops if beside is not None else frozenset(),
        )
        for key, name in (("eos_token", "eos"), ("pad_token", "pad")):
            if isinstance(stage.train.get(key), str):
                found = replace(found, **{name: stage.train[key]})
        path = stage.train.get("chat_template_path")
        if isinstance(path, str) and path:
            return self._with_template(found, path)
        return found if stage.chat_template is None else replace(
            found, template=stage.chat_template
        )  # fmt: skip

    def _with_template(self, found: Tokenizer, path: str) -> Tokenizer | None:
        if path.endswith((".jinja", ".j2")):
            return replace(found, template=self._text_of(path) or found.template)
        other = self.of(path)
        # TRL brings the other's special tokens along and makes room for them.
        return None if other is None else replace(other, rows=None)


def _of_stage(stage: Stage, known: _Known, row_of: RowOf) -> Iterator[Finding]:
    at = f"stages.{stage.name}"
    if stage.method == "evaluate":
        yield from _of_evaluation(stage, known, row_of, at)
        return
    tokenizer = known.of_stage(stage)
    row = _row(stage, row_of)
    chats = _chats(stage, row)
    yield from _mixed(stage, row, at)
    yield from _own_tokens(stage, known, at)
    if tokenizer is not None:
        if chats and tokenizer.template is None:
            yield Finding(f"{at}.data", _no_template(tokenizer, stage))
        yield from _special(stage, tokenizer, at)
        if chats and not _told_before(stage, known, row_of):
            yield from _turns(stage, tokenizer, at)
        yield from _rows(stage, tokenizer, at)
        yield from _marks(stage, tokenizer, row, chats, at)
    for role in ("reference", "value_model"):
        yield from _same_tokens(stage, role, tokenizer, known, at)
    yield from _judges(stage, tokenizer, known, chats, at)
    if chats is False:
        yield from _other_rows(stage, known, row_of, at)


def _of_evaluation(stage: Stage, known: _Known, row_of: RowOf, at: str) -> Iterator[Finding]:
    """Every candidate is asked through one tokenizer, and the reference reads what it made."""
    found = known.of_stage(stage)
    chats = _chats(stage, _row(stage, row_of))
    if found is not None and found.template is None and chats:
        yield Finding(f"{at}.data", _no_template(found, stage))
    asked = {f"{at}.candidates.{label}": model for label, model in stage.candidates.items()}
    if "reference" in stage.models:
        asked[f"{at}.reference"] = stage.models["reference"]
    for key, reference in asked.items():
        other = known.of(reference)
        if found is not None and other is not None and _differ(found, other, ADDED):
            yield Finding(key, foreign(other.name, found.name))
    if chats is False:
        yield from _other_rows(stage, known, row_of, at)


def foreign(model: str, tokenizer: str) -> str:
    """What is said of a model of an evaluation that knows other tokens than its tokenizer."""
    text = f"{model} numbers its tokens otherwise than {tokenizer}, the tokenizer through which all"
    return text + " models of an evaluation read; give it an evaluation of its own"


def _no_template(tokenizer: Tokenizer, stage: Stage) -> str:
    text = f"the rows are messages, and the tokenizer {tokenizer.name} has no chat template; "
    way = "start from an instruct model, or give the stage a `chat_template`"
    if stage.method in ("sft", "reward"):
        way += " (or `train.chat_template_path`)"
    return text + way


def _row(stage: Stage, row_of: RowOf) -> Mapping[str, Any] | None:
    """The first row under TRL's names, where it is known."""
    data = stage.data
    row = row_of(data.path) if data is not None else None
    if data is None or row is None:
        return None
    kept = {key: value for key, value in row.items() if not data.keep or key in data.keep}
    named = {theirs: ours for ours, theirs in data.columns.items()}
    read = {named.get(key, key): value for key, value in kept.items()}
    column = turns_of(read) if stage.method == "sft" else None
    return {**read, "messages": as_messages(read[column])} if column is not None else read


def _chats(stage: Stage, row: Mapping[str, Any] | None) -> bool | None:
    """Whether the rows are conversations; None where nobody knows."""
    if stage.data is not None and (stage.data.as_chat or stage.data.system_prompt is not None):
        return True
    if row is None:
        return None
    return any(is_chat(row.get(key)) for key in _CHATS)


def _mixed(stage: Stage, row: Mapping[str, Any] | None, at: str) -> Iterator[Finding]:
    """Some columns messages, some text: TRL takes a row as one or the other."""
    given = {key: row[key] for key in _CHATS if row and row.get(key)}
    talks = [key for key, value in given.items() if is_chat(value)]
    texts = [key for key, value in given.items() if isinstance(value, str)]
    paired = {"prompt", "chosen", "rejected", "completion"}
    if not (set(talks) & paired and set(texts) & paired) or row is None or _mended(stage, row):
        return
    text = f"{', '.join(talks)} are messages and {', '.join(texts)} is text; make them alike"
    if texts == ["prompt"] and "chosen" in talks:
        text += ", or leave the prompt out (`keep: [chosen, rejected]`) where both repeat it"
    yield Finding(f"{at}.data", text)


def _mended(stage: Stage, row: Mapping[str, Any]) -> bool:
    """Whether the worker leaves the prompt out: no completion follows it, or both conversations
    hold it too."""
    if stage.method == "sft":
        return "completion" not in row
    return beside_chats(row) and repeated(row)


def _special(stage: Stage, tokenizer: Tokenizer, at: str) -> Iterator[Finding]:
    """The end and padding tokens."""
    vocabulary = tokenizer.vocabulary
    for key, token in (("eos_token", tokenizer.eos), ("pad_token", tokenizer.pad)):
        if vocabulary is not None and token is not None and token not in vocabulary:
            stated = isinstance(stage.train.get(key), str)
            text = f"{key} {token!r} is not in the vocabulary of {tokenizer.name}"
            way = "; name a token that is" if stated else "; correct its tokenizer_config.json"
            yield Finding(f"{at}.train.{key}" if stated else f"{at}.tokenizer", text + way)
    if tokenizer.eos is None and not tokenizer.plain:
        return
    if tokenizer.eos is None:
        way = "set eos_token in its tokenizer_config.json"
        if "eos_token" in _keys(stage):
            way += ", or `train.eos_token`"
        text = f"the tokenizer {tokenizer.name} has no end token, so that no completion ends; {way}"
        yield Finding(f"{at}.tokenizer", text)
        return
    others = [token for token in PADS if token != tokenizer.eos]
    padless = tokenizer.pad == tokenizer.eos or (tokenizer.pad is None and tokenizer.plain)
    if padless and not set(others) & set(vocabulary or others):
        text = f"the tokenizer {tokenizer.name} has no padding token apart from its end token, "
        text += "and none that could serve; save it with a pad_token of its own, and name that "
        yield Finding(f"{at}.tokenizer", text + "folder as `tokenizer`")


def _turns(stage: Stage, tokenizer: Tokenizer, at: str) -> Iterator[Finding]:
    """A template whose turns end otherwise than by the end token: what is trained to write in turns
    never stops, and what is sampled runs to its longest."""
    template, eos = tokenizer.template, tokenizer.eos
    if template is None or eos is None or eos in template or "eos_token" in template:
        return
    end = next((token for token in _TURN_ENDS if token in template), None)
    if end is None or (tokenizer.vocabulary or {}).get(end) in tokenizer.stops:
        return
    text = f"turns of the chat template end with {end} and the end token is {eos}: the model would "
    text += "not stop by itself; "
    if stage.method == "sft":
        way = f"set `train.eos_token: {end!r}`"
        yield Finding(f"{at}.train.eos_token", text + way, fatal=False)
    elif METHODS[stage.method].online and stage.train.get("stop_token") != end:
        way = "start from an SFT stage with that as its `train.eos_token`, or name a `tokenizer` "
        way += "that ends with it"
        if "stop_token" in _keys(stage):
            way = f"set `train.stop_token: {end!r}`, or {way}"
        main = METHODS[stage.method].main_role
        yield Finding(f"{at}.{main}", text + way, fatal=False)


def _told_before(stage: Stage, known: _Known, row_of: RowOf) -> bool:
    """Whether the stage goes on from one that taught its model how turns end, and was told so."""
    main = stage.models.get(METHODS[stage.method].main_role, "")
    upstream = stage_of(main)
    if upstream is None:
        return False
    before = known.stage(upstream)
    if before.use is not None or before.method not in METHODS or before.command is not None:
        return False
    if before.method == "sft" and _chats(before, _row(before, row_of)):
        return True
    return _told_before(before, known, row_of)


def _rows(stage: Stage, tokenizer: Tokenizer, at: str) -> Iterator[Finding]:
    """Tokens past the embedding's end."""
    if tokenizer.rows is None or not tokenizer.vocabulary:
        return
    largest = max(tokenizer.vocabulary.values())
    if largest < tokenizer.rows:
        return
    special = {
        name: token
        for name, token in (("eos", tokenizer.eos), ("pad", tokenizer.pad), ("bos", tokenizer.bos))
        if token is not None and tokenizer.vocabulary.get(token, -1) >= tokenizer.rows
    }
    text = f"the tokenizer {tokenizer.name} numbers its tokens up to {largest}, and the model's "
    text += f"embedding has {tokenizer.rows} rows"
    if special or stage.tokenizer is not None:
        said = ", ".join(f"{name} {token!r}" for name, token in special.items())
        text += f" ({said} among those without one)" if special else ""
        way = "; name the model's own tokenizer, or grow the embedding and save both"
        yield Finding(f"{at}.tokenizer", text + way)
    else:
        yield Finding(f"{at}.tokenizer", text + ": rows with those tokens would fail", fatal=False)


def _marks(
    stage: Stage,
    tokenizer: Tokenizer,
    row: Mapping[str, Any] | None,
    chats: bool | None,
    at: str,
) -> Iterator[Finding]:
    """`assistant_only_loss` needs a template that marks what the assistant says."""
    if stage.train.get("assistant_only_loss") is not True:
        return
    key = f"{at}.train.assistant_only_loss"
    if row is not None and not chats:
        yield Finding(key, "the rows are text; give `messages`, or use `completion_only_loss`")
    elif tokenizer.template is not None and not _MARKS.search(tokenizer.template):
        digest = sha256(tokenizer.template.encode()).hexdigest()
        if digest in marked_templates():
            text = "the chat template marks no generation; TRL trains with its own marked copy of "
            yield Finding(key, text + "this one, and saves the template as it is", fatal=False)
        else:
            text = "the chat template does not mark what the assistant says, and TRL has no marked "
            text += "copy of it; put {% generation %} … {% endgeneration %} around that in a "
            yield Finding(key, text + "`chat_template` of the stage's own")


def _own_tokens(stage: Stage, known: _Known, at: str) -> Iterator[Finding]:
    """A tokenizer of another model than the one that trains with it. Either may lack tokens."""
    if stage.tokenizer is None:
        return
    main = stage.models.get(METHODS[stage.method].main_role)
    given, own = known.of(stage.tokenizer), known.of(main) if main is not None else None
    if given is not None and own is not None and _differ(given, own, least=0.0):
        text = f"it numbers its tokens otherwise than {own.name}, the model that trains with it; "
        yield Finding(f"{at}.tokenizer", text + "leave it out, or name one of the model's family")


def _same_tokens(
    stage: Stage, role: str, tokenizer: Tokenizer | None, known: _Known, at: str
) -> Iterator[Finding]:
    """Models that read the policy's tokens by their numbers."""
    reference = stage.models.get(role)
    other = known.of(reference) if reference is not None else None
    # A value model is held to every token by the worker; to a reference, added ones may be new.
    least = 1.0 if role == "value_model" else ADDED
    if tokenizer is None or other is None or not _differ(tokenizer, other, least):
        return
    text = f"{role.replace('_', ' ')} and policy number their tokens differently ({other.name}, "
    text += f"{tokenizer.name}), and it reads the policy's; take one of the policy's family"
    yield Finding(f"{at}.{role}", text)


def _judges(
    stage: Stage, tokenizer: Tokenizer | None, known: _Known, chats: bool | None, at: str
) -> Iterator[Finding]:
    """Reward models, which read through their own tokenizers and templates."""
    for key, reference in _reward_models(stage, at).items():
        judge = known.of(reference)
        if judge is None or not chats:
            continue
        if judge.template is None:
            text = f"the prompts are messages, and the reward model's tokenizer {judge.name} has no"
            text += " chat template to read answers through; train it on messages, or save its "
            yield Finding(key, text + "tokenizer with the template that it was trained with")
        elif (
            tokenizer is not None
            and tokenizer.template not in (None, judge.template)
            and not _differ(tokenizer, judge)
        ):
            text = "it shares the policy's vocabulary and not its chat template, and reads answers "
            text += "through its own; give both stages one `chat_template` unless it was trained so"
            yield Finding(key, text, fatal=False)


def _reward_models(stage: Stage, at: str) -> dict[str, str]:
    """Key → the reward model that it names."""
    judges = {f"{at}.rewards.{each.label}": each.model for each in stage.rewards if each.model}
    if "reward_model" in stage.models:
        judges[f"{at}.reward_model"] = stage.models["reward_model"]
    return judges


def _other_rows(stage: Stage, known: _Known, row_of: RowOf, at: str) -> Iterator[Finding]:
    """Reward models of the recipe that learn from conversations, where the prompts are text."""
    for key, reference in _reward_models(stage, at).items():
        upstream = stage_of(reference)
        trained = known.stage(upstream) if upstream is not None else None
        if trained is None or trained.use is not None or trained.data is None:
            continue
        if _chats(trained, _row(trained, row_of)):
            text = "it is trained on conversations, and the prompts here are text, which it would "
            text += "score without its chat template; `data.as_chat: true` makes them messages"
            yield Finding(key, text, fatal=False)


def _differ(one: Tokenizer, other: Tokenizer, least: float = 1.0) -> bool:
    """As `differ`; False where a vocabulary is not known."""
    known = one.vocabulary and other.vocabulary
    return bool(known) and differ(one.vocabulary or {}, other.vocabulary or {}, least)


def differ(one: Mapping[str, int], other: Mapping[str, int], least: float = 1.0) -> bool:
    """Whether a token's number means something else to the other, or less than the share `least` of
    the tokens is known to both."""
    shared = one.keys() & other.keys()
    if any(one[token] != other[token] for token in shared):
        return True
    return len(shared) < least * max(len(one), len(other))


def _keys(stage: Stage) -> Mapping[str, Any]:
    from launcher.recipe.fields import fields

    return fields(stage.method).schemas
