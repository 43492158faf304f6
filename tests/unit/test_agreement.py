"""Models, tokenizers, chat templates and data that do not go together are told before queueing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from launcher.models.kind import kind_of
from launcher.models.tokenizer import read_tokenizer, tokenizer_of
from launcher.plan.agreement import Finding, findings
from launcher.plan.kinds import wrong_kinds
from launcher.recipe.load import load_recipe, recipe_of
from launcher.recipe.paths import first_row
from tests.unit.command import ROOT, launcher

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
)
WORDS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<pad>", "a", "b")
TURN = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}
DPO_ROW = {"prompt": [TURN], "chosen": [ANSWER], "rejected": [ANSWER]}


def model(
    folder: Path,
    words: tuple[str, ...] = WORDS,
    *,
    template: str | None = CHAT,
    rows: int | None = None,
    classifier: bool = False,
    **special: str | None,
) -> str:
    """A folder of a model without weights: what the check reads."""
    folder.mkdir(parents=True)
    named = {"eos_token": "<|im_end|>", "pad_token": "<pad>", **special}
    config: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": vocabulary, "merges": []}})
    )
    kind = "SequenceClassification" if classifier else "CausalLM"
    shape = {"architectures": [f"Qwen2For{kind}"], "vocab_size": rows or len(words)}
    (folder / "config.json").write_text(json.dumps(shape))
    return str(folder)


def rows(path: Path, row: dict[str, Any]) -> str:
    path.write_text(json.dumps(row) + "\n")
    return str(path)


def told(stages: dict[str, Any]) -> list[Finding]:
    for stage in stages.values():
        if stage["method"] not in ("evaluate", "command") and "use" not in stage:
            stage.setdefault("global_batch", 8)
    text = json.dumps({"launcher": 1, "name": "mine", "stages": stages})
    return findings(
        recipe_of(text, "r"), tokenizer_of, first_row, lambda path: Path(path).read_text()
    )


def one(stages: dict[str, Any]) -> Finding:
    (found,) = told(stages)
    return found


def sft(policy: str, data: str, **more: Any) -> dict[str, Any]:
    return {"method": "sft", "model": policy, "data": {"path": data}, **more}


@pytest.fixture
def chat(tmp_path: Path) -> str:
    return rows(tmp_path / "chat.jsonl", {"messages": [TURN, ANSWER]})


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    return rows(tmp_path / "pairs.jsonl", DPO_ROW)


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    return rows(tmp_path / "prompts.jsonl", {"prompt": [TURN]})


def test_what_goes_together_is_passed_over_in_silence(
    tmp_path: Path, chat: str, pairs: str, prompts: str
) -> None:
    base = model(tmp_path / "base")
    reward_model = model(tmp_path / "rm", classifier=True)
    assert not told(
        {
            "sft": sft(base, chat),
            "dpo": {"method": "dpo", "policy": "stage:sft", "data": {"path": pairs}},
            "ppo": {"method": "ppo", "policy": "stage:dpo", "reward_model": reward_model,
                    "data": {"path": prompts}},
        }
    )  # fmt: skip


def test_nothing_is_said_of_models_that_are_not_here(chat: str) -> None:
    assert not told({"sft": sft("owner/unknown", chat, train={"assistant_only_loss": True})})


def test_messages_want_a_chat_template(tmp_path: Path, chat: str) -> None:
    base = model(tmp_path / "base", template=None)
    found = one({"sft": sft(base, chat)})
    assert found.fatal and found.key == "stages.sft.data"
    assert "has no chat template; start from an instruct model, or give the stage a" in found.text
    assert not told({"sft": sft(base, chat, chat_template=CHAT)})
    (tmp_path / "own.jinja").write_text(CHAT)
    own = {"chat_template_path": str(tmp_path / "own.jinja")}
    assert not told({"sft": sft(base, chat, train=own)})
    other = {"chat_template_path": model(tmp_path / "instruct")}
    assert not told({"sft": sft(base, chat, train=other)})
    text = rows(tmp_path / "text.jsonl", {"text": "a"})
    assert not told({"sft": sft(base, text)})
    shared = rows(tmp_path / "shared.jsonl", {"conversations": [{"from": "human", "value": "a"}]})
    assert one({"sft": sft(base, shared)}).text == found.text


def test_a_later_stage_has_the_template_that_an_earlier_one_was_given(
    tmp_path: Path, chat: str, pairs: str
) -> None:
    base = model(tmp_path / "base", template=None)
    dpo = {"method": "dpo", "policy": "stage:sft", "data": {"path": pairs}}
    assert not told({"sft": sft(base, chat, chat_template=CHAT), "dpo": dict(dpo)})
    said = [finding.key for finding in told({"sft": sft(base, chat), "dpo": dict(dpo)})]
    assert said == ["stages.sft.data", "stages.dpo.data"]


def test_prompts_that_become_conversations_count_as_messages(tmp_path: Path) -> None:
    base = model(tmp_path / "base", template=None)
    data = {"path": "owner/prompts", "system_prompt": "Think."}
    grpo = {"method": "grpo", "policy": base, "data": data, "rewards": {"repetition": "repetition"}}
    assert one({"grpo": grpo}).key == "stages.grpo.data"


def test_columns_of_messages_and_of_text_do_not_mix(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    data = rows(tmp_path / "d.jsonl", {**DPO_ROW, "prompt": "a"})
    dpo: dict[str, Any] = {"method": "dpo", "policy": base, "data": {"path": data}}
    assert "or leave the prompt out (`keep: [chosen, rejected]`)" in one({"dpo": dpo}).text
    dpo["data"]["keep"] = ["chosen", "rejected"]
    assert not told({"dpo": dpo})


def test_a_prompt_of_text_that_the_worker_leaves_out_is_well(
    tmp_path: Path,
) -> None:
    base = model(tmp_path / "base")
    held = {"prompt": "a", "chosen": [TURN, ANSWER], "rejected": [TURN, ANSWER]}
    both = {"path": rows(tmp_path / "d.jsonl", held)}
    assert not told({"dpo": {"method": "dpo", "policy": base, "data": both}})
    talk = rows(tmp_path / "f.jsonl", {"prompt": "a", "messages": [TURN, ANSWER]})
    assert not told({"sft": sft(base, talk)})


def test_a_reward_model_reads_messages_through_a_template_of_its_own(
    tmp_path: Path, prompts: str
) -> None:
    policy = model(tmp_path / "policy")
    ppo = {"method": "ppo", "policy": policy, "data": {"path": prompts}}
    bare = model(tmp_path / "bare", template=None, classifier=True)
    found = one({"ppo": {**ppo, "reward_model": bare}})
    assert found.fatal and found.key == "stages.ppo.reward_model"
    other = model(tmp_path / "other", template=CHAT + "x", classifier=True)
    found = one({"ppo": {**ppo, "reward_model": other}})
    assert not found.fatal and "shares the policy's vocabulary and not its chat" in found.text
    family = (*WORDS, "c")
    foreign = model(tmp_path / "foreign", family, template=CHAT + "x", classifier=True)
    assert not told({"ppo": {**ppo, "reward_model": foreign}})
    grpo = {"method": "grpo", "policy": policy, "data": {"path": prompts},
            "rewards": {"taste": bare}}  # fmt: skip
    assert one({"grpo": grpo}).key == "stages.grpo.rewards.taste"


def test_a_reward_model_of_conversations_is_given_no_prompts_of_text_unsaid(
    tmp_path: Path, pairs: str
) -> None:
    policy = model(tmp_path / "policy")
    text = rows(tmp_path / "text.jsonl", {"prompt": "a"})
    rm = {"method": "reward", "model": policy, "data": {"path": pairs}}
    stages = {
        "ppo": {"method": "ppo", "policy": policy, "reward_model": "stage:rm",
                "data": {"path": text}},
        "grpo": {"method": "grpo", "policy": policy, "rewards": {"taste": "stage:rm"},
                 "data": {"path": text}},
        "eval": {"method": "evaluate", "candidates": {"it": policy}, "reward_model": "stage:rm",
                 "data": {"path": text}},
    }  # fmt: skip
    found = told({"rm": rm, **stages})
    assert [each.key for each in found] == [
        "stages.ppo.reward_model", "stages.grpo.rewards.taste", "stages.eval.reward_model"
    ]  # fmt: skip
    assert not any(each.fatal for each in found) and "`data.as_chat: true`" in found[0].text
    for stage in stages.values():
        stage["data"] = {"path": text, "as_chat": True}
    assert not told({"rm": rm, **stages})
    plain = rows(tmp_path / "pairs.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"})
    stages["ppo"]["data"] = {"path": text}
    assert not told({"rm": {**rm, "data": {"path": plain}}, "ppo": stages["ppo"]})


@pytest.mark.parametrize("name", ["guide/rlhf", "guide/online_dpo"])
def test_the_guides_prompts_are_read_as_the_reward_model_learned(name: str) -> None:
    for stage in load_recipe(name).stages:
        if "reward_model" in stage.models:
            assert stage.data is not None and stage.data.as_chat


@pytest.mark.parametrize(
    ("method", "role"), [("dpo", "reference"), ("ppo", "value_model"), ("kto", "reference")]
)
def test_models_that_read_the_policy_s_tokens_number_them_alike(
    tmp_path: Path, pairs: str, prompts: str, method: str, role: str
) -> None:
    policy, other = model(tmp_path / "policy"), model(tmp_path / "other", (*WORDS[::-1],))
    stage = {"method": method, "policy": policy, role: other,
             "data": {"path": prompts if method == "ppo" else pairs}}  # fmt: skip
    if method == "ppo":
        stage["reward_model"] = model(tmp_path / "rm", classifier=True)
    found = one({method: stage})
    assert found.fatal and found.key == f"stages.{method}.{role}"
    assert "take one of the policy's family" in found.text


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, chat: str) -> None:
    base = model(tmp_path / "base", template=None)
    other = model(tmp_path / "other", WORDS[::-1])
    found = one({"sft": sft(base, chat, tokenizer=other)})
    assert found.fatal and found.key == "stages.sft.tokenizer"
    assert f"it numbers its tokens otherwise than {base}" in found.text
    instruct = model(tmp_path / "instruct", WORDS[:-1])
    assert not told({"sft": sft(base, chat, tokenizer=instruct)})
    later = {"method": "sft", "model": "stage:sft", "data": {"path": chat}, "tokenizer": other}
    stages = {"sft": sft(base, chat, tokenizer=instruct), "again": later}
    assert one(stages).key == "stages.again.tokenizer"


def test_a_reference_may_lack_the_tokens_that_were_added_to_the_policy(
    tmp_path: Path, pairs: str
) -> None:
    words = (*WORDS, *(str(number) for number in range(20)))
    policy = model(tmp_path / "policy", (*words, "<new>"))
    dpo = {"method": "dpo", "policy": policy, "data": {"path": pairs}}
    assert not told({"dpo": {**dpo, "reference": model(tmp_path / "base", words)}})
    assert told({"dpo": {**dpo, "reference": model(tmp_path / "less", words[:15])}})


def test_padding_apart_from_the_end_is_wanted_or_a_token_that_could_serve(
    tmp_path: Path, chat: str
) -> None:
    words = ("<|im_start|>", "<|im_end|>", "a")
    bare = model(tmp_path / "bare", words, pad_token="<|im_end|>")
    found = one({"sft": sft(bare, chat)})
    assert found.fatal and "no padding token apart from its end token" in found.text
    spare = model(tmp_path / "spare", (*words, "<|endoftext|>"), pad_token=None)
    assert not told({"sft": sft(spare, chat)})


def test_tokens_that_the_vocabulary_lacks_are_told(tmp_path: Path, chat: str) -> None:
    found = one(
        {"sft": sft(model(tmp_path / "a", eos_token="<eos>"), chat, chat_template="{{eos_token}}")}
    )
    assert found.fatal and "eos_token '<eos>' is not in the vocabulary" in found.text
    found = one({"sft": sft(model(tmp_path / "b"), chat, train={"pad_token": "<none>"})})
    assert found.fatal and found.key == "stages.sft.train.pad_token"
    found = one({"sft": sft(model(tmp_path / "c", eos_token=None), chat)})
    assert found.fatal and "has no end token" in found.text


def test_special_tokens_that_a_class_may_have_of_its_own_are_not_missed(
    tmp_path: Path, chat: str
) -> None:
    words = ("<|im_start|>", "<|im_end|>", "a")
    own = model(tmp_path / "own", words, eos_token=None, pad_token=None, tokenizer_class="GPT2")
    assert not told({"sft": sft(own, chat)})


def test_a_template_whose_turns_end_otherwise_than_the_model_stops_is_told(
    tmp_path: Path, chat: str
) -> None:
    base = model(tmp_path / "base", eos_token="<|endoftext|>")
    found = one({"sft": sft(base, chat)})
    assert not found.fatal and "set `train.eos_token: '<|im_end|>'`" in found.text
    assert not told({"sft": sft(base, chat, train={"eos_token": "<|im_end|>"})})


@pytest.mark.parametrize("method", ["grpo", "rloo", "ppo", "online_dpo"])
def test_a_policy_that_is_sampled_in_turns_stops_at_their_ends(
    tmp_path: Path, prompts: str, chat: str, method: str
) -> None:
    base = model(tmp_path / "base", eos_token="<|endoftext|>")
    judge = model(tmp_path / "judge", classifier=True)
    stage: dict[str, Any] = {"method": method, "policy": base, "data": {"path": prompts},
                             "reward_model": judge}  # fmt: skip
    found = one({"it": dict(stage)})
    assert not found.fatal and found.key == "stages.it.policy"
    assert "end with <|im_end|> and the end token is <|endoftext|>" in found.text
    assert ("`train.stop_token: '<|im_end|>'`" in found.text) == (method == "ppo")
    assert not told({"it": {**stage, "tokenizer": model(tmp_path / "instruct")}})
    if method == "ppo":
        assert not told({"it": {**stage, "train": {"stop_token": "<|im_end|>"}}})
    # Said once, where the turns are taught.
    after = {"sft": sft(base, chat), "it": {**stage, "policy": "stage:sft"}}
    assert one(after).key == "stages.sft.train.eos_token"
    (Path(base) / "generation_config.json").write_text('{"eos_token_id": [2, 1]}')
    assert not told(after) and not told({"it": dict(stage)})


def test_tokens_past_the_embedding_are_told(tmp_path: Path, chat: str) -> None:
    found = one({"sft": sft(model(tmp_path / "a", rows=5), chat)})
    assert not found.fatal and "numbers its tokens up to 5, and the model's" in found.text
    found = one({"sft": sft(model(tmp_path / "b", rows=3), chat)})
    assert found.fatal and "pad '<pad>' among those without one" in found.text
    large = model(tmp_path / "large", (*WORDS, "c"))
    found = one({"sft": sft(model(tmp_path / "small"), chat, tokenizer=large)})
    assert found.fatal and "name the model's own tokenizer" in found.text


def test_assistant_only_loss_wants_marks_messages_or_a_template_that_trl_knows(
    tmp_path: Path, chat: str
) -> None:
    masked: dict[str, Any] = {"train": {"assistant_only_loss": True}}
    base = model(tmp_path / "base")
    found = one({"sft": sft(base, chat, **masked)})
    assert found.fatal and "put {% generation %}" in found.text
    marked = CHAT.replace("{{ m['content'] }}", "{%- generation -%}{% endgeneration %}")
    assert not told({"sft": sft(base, chat, chat_template=marked, **masked)})
    text = rows(tmp_path / "text.jsonl", {"text": "a"})
    found = one({"sft": sft(base, text, **masked)})
    assert found.fatal and "the rows are text" in found.text


def test_a_finished_model_stands_in_for_a_stage(tmp_path: Path, pairs: str) -> None:
    done = model(tmp_path / "done", template=None)
    stages = {
        "sft": {"method": "sft", "use": done},
        "dpo": {"method": "dpo", "policy": "stage:sft", "data": {"path": pairs}},
    }
    assert one(stages).key == "stages.dpo.data"


def test_the_tokenizer_of_an_evaluation_reads_messages_too(tmp_path: Path, prompts: str) -> None:
    bare, whole = model(tmp_path / "bare", template=None), model(tmp_path / "whole")
    stage = {"method": "evaluate", "candidates": {"it": bare}, "data": {"path": prompts}}
    assert one({"eval": dict(stage)}).key == "stages.eval.data"
    for way in ({"reference": whole}, {"tokenizer": whole}, {"chat_template": CHAT}):
        assert not told({"eval": {**stage, **way}})


def test_models_of_an_evaluation_number_their_tokens_alike(tmp_path: Path, prompts: str) -> None:
    words = (*WORDS, *(str(number) for number in range(20)))
    base = model(tmp_path / "base", words)
    other = model(tmp_path / "other", words[::-1])
    more = model(tmp_path / "more", (*words, "<new>"))
    stage = {"method": "evaluate", "candidates": {"base": base, "other": other},
             "data": {"path": prompts}}  # fmt: skip
    found = one({"eval": dict(stage)})
    assert found.fatal and found.key == "stages.eval.candidates.other"
    assert "give it an evaluation of its own" in found.text
    alike = {**stage, "candidates": {"base": base, "more": more, "unknown": "owner/unknown"}}
    assert not told({"eval": dict(alike)})
    assert one({"eval": {**alike, "tokenizer": base, "reference": other}}).key == (
        "stages.eval.reference"
    )


def test_a_tokenizer_is_read_in_every_form_that_it_is_saved_in(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    assert read_tokenizer(folder, "m") is None
    named = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    token = {"content": "</s>", "lstrip": False}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": named, "eos_token": token})
    )
    (folder / "special_tokens_map.json").write_text('{"pad_token": "<unk>", "eos_token": "x"}')
    unigram = {"type": "Unigram", "vocab": [["<unk>", 0.0], ["</s>", -1.5]]}
    added = [{"id": 7, "content": "<x>", "special": True}]
    (folder / "tokenizer.json").write_text(json.dumps({"model": unigram, "added_tokens": added}))
    (folder / "config.json").write_text('{"text_config": {"vocab_size": 9}}')
    found = read_tokenizer(folder, "m")
    assert found is not None
    assert (found.template, found.eos, found.pad, found.rows) == ("d", "</s>", "<unk>", 9)
    assert found.vocabulary == {"<unk>": 0, "</s>": 1, "<x>": 7}
    (folder / "chat_template.jinja").write_text("j")
    (folder / "tokenizer.json").write_text("{")
    again = read_tokenizer(folder, "m")
    assert again is not None and again.template == "j" and again.vocabulary is None


def test_a_model_in_the_hub_s_cache_is_read_there(tmp_path: Path) -> None:
    model(tmp_path / "models--owner--name" / "snapshots" / "abc")
    found = tokenizer_of("owner/name", tmp_path)
    assert found is not None and found.name == "owner/name" and found.template == CHAT
    assert tokenizer_of("owner/other", tmp_path) is None
    assert tokenizer_of("owner/name", None) is None


def test_a_large_vocabulary_takes_milliseconds(tmp_path: Path) -> None:
    words = tuple(f"token-{number}" for number in range(150_000))
    model(tmp_path / "m", (*WORDS, *words))
    started = time.process_time()
    assert tokenizer_of(str(tmp_path / "m")) is not None
    assert time.process_time() - started < 0.5


def test_a_policy_judges_nothing_and_a_reward_model_writes_nothing(tmp_path: Path) -> None:
    policy, judge = model(tmp_path / "policy"), model(tmp_path / "judge", classifier=True)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text('{"architectures": ["OwnModel"]}')
    data = {"data": {"path": "owner/rows"}}
    trains = {**data, "global_batch": 8}

    def stages(writes: str, judges: str) -> dict[str, Any]:
        ppo = {"method": "ppo", "policy": writes, "reward_model": judges, "value_model": judges}
        return {
            "rm": {"method": "reward", "use": judges},
            "sft": {"method": "sft", "use": writes},
            "ppo": {**ppo, **trains},
            "grpo": {"method": "grpo", "policy": "stage:sft", "rewards": {"it": judges}, **trains},
            "eval": {"method": "evaluate", "candidates": {"it": writes}, "reference": writes,
                     "reward_model": judges, **data},
            "more": {"method": "reward", "model": judges, **trains},
        }  # fmt: skip

    def wrong(writes: str, judges: str) -> list[Finding]:
        text = json.dumps({"launcher": 1, "name": "mine", "stages": stages(writes, judges)})
        return wrong_kinds(recipe_of(text, "r"), kind_of)

    assert not wrong(policy, judge) and not wrong(str(bare), str(bare))
    assert not wrong("owner/unknown", "owner/unknown")
    assert [each.key for each in wrong(policy, policy)] == [
        "stages.rm.use", "stages.ppo.reward_model", "stages.grpo.rewards.it",
        "stages.eval.reward_model",
    ]  # fmt: skip
    assert [each.key for each in wrong(judge, judge)] == [
        "stages.sft.use", "stages.ppo.policy", "stages.eval.reference", "stages.eval.candidates.it",
    ]  # fmt: skip
    assert all(each.fatal for each in wrong(judge, policy))
    assert kind_of("owner/name", tmp_path) is None
    model(tmp_path / "models--owner--name" / "snapshots" / "abc", classifier=True)
    assert kind_of("owner/name", tmp_path) == "reward_model"


def test_validate_plan_and_submit_refuse_what_does_not_go_together(tmp_path: Path) -> None:
    chat = rows(tmp_path / "chat.jsonl", {"messages": [TURN, ANSWER]})
    base = model(tmp_path / "base", template=None)
    stages = {"sft": sft(base, chat, global_batch=8)}
    recipe: dict[str, Any] = {"launcher": 1, "name": "mine", "stages": stages}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    for verb in ("validate", "plan", "submit"):
        ended = launcher(verb, "r.yaml", folder=tmp_path, code=2)
        assert "stages.sft.data: the rows are messages, and the tokenizer" in ended.err
    judge = model(tmp_path / "judge", classifier=True)
    recipe["stages"] = {"sft": sft(judge, chat, global_batch=8)}
    (tmp_path / "kind.yaml").write_text(json.dumps(recipe))
    ended = launcher("validate", "kind.yaml", folder=tmp_path, code=2)
    assert "stages.sft.model: " in ended.err and "where a policy is needed" in ended.err
    assert not (tmp_path / "runs").exists()


def test_the_tiny_recipes_go_together() -> None:
    for path in sorted((ROOT / "recipes" / "tiny").glob("*.yaml")):
        recipe = load_recipe(str(path))
        assert not findings(recipe, tokenizer_of, first_row, lambda path: None), path
