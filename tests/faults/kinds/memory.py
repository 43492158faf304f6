"""Memory runs out."""

from __future__ import annotations

from tests.faults.case import Case
from tests.faults.fault import Lost, fault
from tests.faults.scenes import SFT, SHORT


def _receipts(case: Case) -> str:
    return ", ".join(
        f"rung {each.get('rung')} {each.get('failed') or each.get('outcome')}"
        for each in case.attempts()
    )


@fault("memory runs out, and the next rung fits", SHORT, same_weights=False, redo=24, quick=True)
def ladder(case: Case) -> None:
    """Of the first attempts each meets, at one of its writes, an allocation that fails."""
    times = case.rng.randint(1, 2)
    case.hook(
        events=["open"],
        path=r"progress\.json|metrics\.jsonl",
        nth=case.rng.randint(3, 12),
        times=times,
        do="exhaust",
    )
    case.submit()
    case.until_marked(times)
    case.finish(600)
    case.hit(_receipts(case))
    rungs = [each["rung"] for each in case.attempts()]
    if rungs != list(range(times + 1)):
        raise Lost(f"the rungs were {rungs}")
    # The same tokens in the same order: the global batch is what the recipe says.
    tokens = [row["num_tokens"] for row in case.rows() if row["step"] == 12]
    plain = _tokens_of_a_plain_run(case)
    if plain is not None and abs(tokens[-1] - plain) > 0.5:
        raise Lost(f"{tokens[-1]} tokens after 12 steps, undisturbed {plain}")


def _tokens_of_a_plain_run(case: Case) -> float | None:
    """How many tokens 12 steps of the same data are, from an undisturbed run of this session."""
    for path in sorted(case.site.runs.glob("plain-*/stages/sft/metrics.jsonl")):
        for line in path.read_text().splitlines():
            if '"step": 12,' in line and "num_tokens" in line:
                return float(line.split('"num_tokens": ')[1].split(",")[0])
    return None


@fault("memory runs out at every rung", SFT, end="stays stopped", redo=24, patience_s=900)
def exhausted(case: Case) -> None:
    case.hook(
        events=["open"],
        path=r"progress\.json|metrics\.jsonl",
        nth=case.rng.randint(3, 8),
        times=50,
        do="exhaust",
    )
    case.submit()
    case.until_failed("memory", 900)
    case.hit(_receipts(case))
    if len(case.attempts()) > 12:
        raise Lost(f"{len(case.attempts())} attempts")


@fault("the kernel kills the trainer for want of memory", SFT)
def killed(case: Case) -> None:
    """As the kernel does it: SIGKILL at an allocation, here at a read amid a step."""
    case.hook(
        events=["open"],
        path=r"metrics\.jsonl",
        nth=case.draw_step(2),
        do="kill",
    )
    case.submit()
    mark = case.until_marked()[0]
    case.hit(f"trainer {mark['pid']} killed after step {case.step()}")
