"""What fails the same way each time, or makes no progress, stops with its reason."""

from __future__ import annotations

from pathlib import Path

from tests.faults.case import Case
from tests.faults.fault import Lost, Missed, fault
from tests.faults.kinds.signals import HANG
from tests.faults.scenes import GRPO, PPO, SAVE, SFT, SHORT


@fault("the recipe's own function fails", GRPO, end="stays stopped")
def user(case: Case) -> None:
    nth = case.rng.randint(1, 2 * SAVE)
    case.rewards(f"""
_calls = 0
_plain = early
def early(completions, **columns):
    global _calls
    _calls += 1
    if _calls >= {nth}:
        raise ValueError("the judge is out")
    return _plain(completions, **columns)
""")
    case.submit()
    case.until_failed("the judge is out")
    case.hit(f"its call {nth} failed; {len(case.attempts())} attempt")
    if len(case.attempts()) != 1:
        raise Lost(f"an error that comes again was tried {len(case.attempts())} times")


@fault("a stage fails for good while others wait for it", PPO, end="stays stopped")
def final(case: Case) -> None:
    """Nothing of the run is left in the queue, and `why` tells the reason of each."""
    rows = case.folder / "rows.jsonl"
    plain = case.scene.stages["sft"]["data"]
    lines = Path(plain["path"]).read_text().splitlines()
    # Nothing that a login node could see: what a line is, only its reader finds.
    lines[case.rng.randrange(100, len(lines))] = '{"prompt": 1}'
    rows.write_text("\n".join(lines) + "\n")
    case.submit(at="sft", change={"data": {**plain, "path": str(rows)}})
    case.until_failed(".")
    states = [stage["state"] for stage in case.status()["stages"]]
    case.hit(f"stages are {', '.join(states)}; the queue is empty")
    said = case.site.call("why", case.root.root.name)
    if said.code != 0 or not said.out.strip():
        raise Lost(f"why exited {said.code}: {said.err.strip()[-300:]}")


@fault("the trainer is killed at every start", SHORT, end="stays stopped", patience_s=900)
def no_progress(case: Case) -> None:
    case.hook(
        events=["open"],
        path=r"progress\.json|metrics\.jsonl",
        nth=case.rng.randint(1, 5),
        times=60,
        do="kill",
    )
    case.submit()
    case.until_failed(".", 900)
    attempts = case.attempts()
    case.hit(f"{len(attempts)} attempts without progress")
    if not 2 <= len(attempts) <= 12:
        raise Lost(f"{len(attempts)} attempts without progress")


@fault("the loss is no number", SHORT, end="stays stopped")
def nan(case: Case) -> None:
    case.submit({"train": {"learning_rate": 10.0 ** case.rng.randint(20, 30)}})
    case.until_failed(r"(?i)nan|not a number|no number|finite")
    case.hit(f"stopped: {case.told()[:120]}")
    if len(case.attempts()) > 2:
        raise Lost(f"tried {len(case.attempts())} times")


@fault("a hang that comes each time", SFT, end="stays stopped", points=1, patience_s=900)
def hang(case: Case) -> None:
    case.hook(events=["open"], path=r"metrics\.jsonl", nth=2, times=60, do="stop")
    case.submit({"resources": {"hang_timeout": HANG}})
    case.until_failed(".", 900)
    if not case.marks():
        raise Missed("it did not stand still")
    case.hit(f"{len(case.attempts())} attempts that stood still")
