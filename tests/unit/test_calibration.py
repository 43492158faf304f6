"""What runs measured corrects the estimates of their kind, within bounds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.memory.types import GIB, MemoryEstimate, Phase
from launcher.plan.calibration import ITEM, Learned, learn, subject, table
from launcher.plan.document import plan_from_json, plan_to_json
from launcher.plan.evidence import Evidence, Kind, Observation, kind_of, merge, received
from launcher.plan.formula import fingerprint
from launcher.plan.make import make_plan
from launcher.recipe.types import Peft
from tests.unit.planning import MIXED, plan_one, recipe, settings, shapes, stage

SFT = Kind("sft", "full", "zero-3", False, "cuda")
TRL = "1.16.0"


def run(ratio: float, size: float = 20.0, kind: Kind = SFT, **changed: object) -> Observation:
    """One run whose peak was `ratio` times the estimate of `size` GiB."""
    run.count += 1  # type: ignore[attr-defined]
    number = run.count  # type: ignore[attr-defined]
    made = Observation(
        kind=kind,
        formula=fingerprint(kind),
        trl="1.16",
        predicted=int(size * GIB),
        measured=int(size * ratio * GIB),
        when=1e9 + number,
        run=f"{number:016x}",
    )
    return replace(made, **changed)  # type: ignore[arg-type]


run.count = 0  # type: ignore[attr-defined]


def known(*runs: Observation, kind: Kind = SFT) -> Learned:
    return learn(Evidence(runs), kind, TRL)


def factor(*runs: Observation, size: float = 20.0) -> float:
    return known(*runs).correction(int(size * GIB)).factor


def test_n_runs_that_agree_go_n_of_n_plus_1_of_the_way() -> None:
    for n in (1, 3, 14):
        assert math.log(factor(*[run(2.0)] * n)) == pytest.approx(math.log(2) * n / (n + 1))


def test_one_run_that_went_wrong_moves_no_median() -> None:
    agreeing = [run(1.05) for _ in range(9)]
    assert factor(*agreeing, run(3.9)) == pytest.approx(factor(*agreeing), abs=0.01)


def test_a_run_tells_less_of_models_of_another_size() -> None:
    small = [run(1.5, size=1.0) for _ in range(5)]
    factors = [factor(*small, size=size) for size in (1.0, 2.0, 3.0, 4.0, 16.0)]
    assert factors[0] > factors[1] > factors[2] > factors[3] == factors[4] == 1.0


@pytest.mark.parametrize(
    "other",
    [
        {"kind": replace(SFT, method="reward")},
        {"kind": replace(SFT, adapter="lora")},
        {"kind": replace(SFT, sharding="none")},
        {"formula": "00000000"},
        {"trl": "1.15"},
    ],
    ids=str,
)
def test_runs_of_another_kind_formula_or_trl_do_not_count(other: dict[str, object]) -> None:
    assert known(*[replace(run(2.0), **other) for _ in range(30)]).observations == ()  # type: ignore[arg-type]


ESTIMATE = MemoryEstimate(
    (
        Phase("load", {"weights": 5 * GIB, "context": GIB}),
        Phase("step", {"weights": 5 * GIB, "optimizer": 15 * GIB, "context": GIB}),
    ),
    host_bytes=8 * GIB,
)


@given(st.lists(st.floats(0.26, 3.9), min_size=1, max_size=30))
def test_the_correction_is_an_item_and_items_still_sum_to_the_total(ratios: list[float]) -> None:
    corrected, said = known(*[run(ratio) for ratio in ratios]).corrected(ESTIMATE)
    assert said.runs == len(ratios)
    assert min(1.0, *ratios) - 1e-9 <= said.factor <= max(1.0, *ratios) + 1e-9
    for before, after in zip(ESTIMATE.phases, corrected.phases, strict=True):
        assert after.total == sum(after.items.values()) > 0
        added = after.items.get(ITEM, 0)
        assert after.total - added == before.total
        assert added == pytest.approx((said.factor - 1) * before.reserved, abs=1)
        assert subject(after, SFT) == before.reserved


@given(st.lists(st.floats(0.26, 3.9), min_size=1, max_size=120))
def test_the_margin_never_becomes_infinite_and_covers_what_was_seen(ratios: list[float]) -> None:
    learned = known(*[run(ratio) for ratio in ratios])
    assert 0.02 <= learned.margin.value <= 0.5
    if len(ratios) < 99:
        assert learned.margin.value >= min(0.5, *[max(learned.errors)])


def test_memory_that_ran_out_says_that_more_was_needed_and_never_that_less_was() -> None:
    died = run(1.2, at_least=True)
    assert known(died).margin.value >= 1 - 1 / 1.2 - 1e-9
    assert factor(died) > 1
    assert known(run(0.5, at_least=True)).observations == ()


def test_one_other_user_moves_a_plan_by_a_quarter_at_most() -> None:
    poison = [run(1e-6, user=666) for _ in range(500)] + [run(1e6, user=667) for _ in range(500)]
    for user in (666, 667):
        of_one = [each for each in poison if each.user == user]
        assert 1 / 1.25 <= factor(*of_one) <= 1.25
        assert known(*of_one).margin.value <= 0.2
        assert len(known(*of_one).observations) == 10


def test_where_others_measured_too_one_liar_does_not_move_the_median_past_them() -> None:
    honest = [run(1.02 + 0.001 * i, user=100 + i % 5) for i in range(40)]
    own = [run(1.02), run(1.03)]
    lies = [run(100.0, user=666) for _ in range(500)]
    assert factor(*own, *honest, *lies) <= 1.06


def test_evidence_is_a_value_with_a_digest_that_knows_no_order() -> None:
    runs = [run(1.1), run(1.2)]
    assert Evidence(tuple(runs)).digest == Evidence(tuple(reversed(runs))).digest != ""
    assert Evidence().digest == ""
    assert merge(runs, [replace(runs[0], user=7)]).observations == tuple(runs)


def test_what_others_wrote_is_taken_only_in_the_shape_of_an_observation() -> None:
    good, now = run(1.0), 2e9
    assert received(good, 7, now) == replace(good, user=7)
    for changed in (
        {"predicted": 0},
        {"measured": -1},
        {"measured": 2**60},
        {"when": now * 2},
        {"when": math.nan},
        {"gpu": "\x1b[2J"},
        {"run": "x" * 99},
        {"kind": replace(SFT, method="rm -rf")},
        {"kind": replace(SFT, sharding="none", offload=True)},
    ):
        assert received(replace(good, **changed), 7, now) is None, changed


def test_a_plan_holds_its_correction_margin_and_evidence() -> None:
    given_stage = stage()
    plain = plan_one(given_stage)
    kind = kind_of(given_stage, settings(zero_stage=plain.zero_stage))
    size = subject(plain.estimate.peak, kind) / GIB
    runs = Evidence(tuple(run(1.04, size, kind) for _ in range(30)))
    made = make_plan(recipe(given_stage), MIXED, shapes, trl_version=TRL, evidence=runs)
    planned = made.stages[0]
    assert made.evidence == runs.digest
    assert planned.zero_stage == plain.zero_stage
    assert planned.calibration.runs == 30
    assert planned.calibration.factor == pytest.approx(1.04, abs=0.005)
    assert planned.margin < plain.margin == 0.1
    assert planned.calibration.margin == "from 30 runs of this kind"
    assert planned.estimate.peak.items[ITEM] > 0
    assert plan_from_json(plan_to_json(made)) == made


def test_what_was_measured_decides_what_fits() -> None:
    given_stage = stage(peft=Peft(), model="Qwen/Qwen2.5-7B")
    plain = plan_one(given_stage)
    kind = kind_of(given_stage, settings(zero_stage=plain.zero_stage))
    size = subject(plain.estimate.peak, kind) / GIB
    runs = Evidence(tuple(run(3.0, size, kind) for _ in range(10)))
    made = make_plan(recipe(given_stage), MIXED, shapes, trl_version=TRL, evidence=runs).stages[0]
    assert made.calibration.runs == 0 or made.micro_batch < plain.micro_batch


def test_the_fingerprint_is_that_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.memory.estimate import estimate as whole

    before = fingerprint(SFT)

    def doubled(*given: object) -> MemoryEstimate:
        found = whole(*given)  # type: ignore[arg-type]
        twice = (Phase(p.name, {k: 2 * v for k, v in p.items.items()}) for p in found.phases)
        return MemoryEstimate(tuple(twice), found.host_bytes)

    fingerprint.cache_clear()
    assert fingerprint(SFT) == before
    fingerprint.cache_clear()
    monkeypatch.setattr("launcher.plan.formula.estimate", doubled)
    assert fingerprint(SFT) != before
    fingerprint.cache_clear()


def test_the_table_shows_also_what_is_not_used() -> None:
    rows = table(Evidence((run(1.1), run(1.1), run(1.2, formula="00000000", user=7))), TRL)
    assert [(row.current, row.runs, row.others) for row in rows] == [(True, 2, 0), (False, 1, 1)]
    assert rows[0].kind == "sft full zero-3 cuda"
