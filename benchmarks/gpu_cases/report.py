"""Results as text: measured beside estimated, case by case, and what that says in all. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from benchmarks.gpu_cases.result import Result
from launcher.memory.types import GIB

NOTHING = "No GPU has been measured yet."
COUNTED = ("allocated", "reserved", "resident")


def table(results: Sequence[Result]) -> str:
    """Of one machine, with its summary."""
    return "\n".join([HEAD, *map(line, results), "", *summary(results)])


HEAD = f"{'case':32} {'':9} {'measured':>9} {'estimated':>9} {'error':>7} {'step s':>7} {'said':>7}"


def line(result: Result) -> str:
    """Of one case: a line for each thing that is counted; one that failed says with what."""
    said, took = (f"{each:7.2f}" if each else f"{'–':>7}" for each in result.step_times)
    if not result.figures:
        return f"{result.case.name:32} {verdict(result)}"
    lines: list[str] = []
    for name, (estimated, measured) in result.figures.items():
        first = not lines
        lines.append(
            f"{result.case.name if first else '':32} {name:9} {measured / GIB:9.2f}"
            f" {estimated / GIB:9.2f} {estimated / measured - 1:+7.1%}"
            + (f" {took} {said}" if first else "")
        )
    if not result.fits:
        lines.append(f"{'':32} {verdict(result)}")
    return "\n".join(lines)


def verdict(result: Result) -> str:
    """Whether it fitted, beside whether it was said to."""
    if result.out_of_memory:
        phase = result.measured.last_phase if result.measured is not None else "?"
        return f"out of memory in `{phase}`, {'NOT ' if result.fits else ''}as estimated"
    if result.short is not None:
        return f"failed: {result.short} tokens a pass, not {result.case.tokens}"
    if not result.figures:
        return f"failed: {result.message or result.outcome}"
    return "fits" if result.fits else "fits, though estimated not to"


def errors(results: Iterable[Result], name: str) -> list[float]:
    """estimated ÷ measured − 1 of every result that has the figure."""
    figures = [result.figures[name] for result in results if name in result.figures]
    return [estimated / measured - 1 for estimated, measured in figures]


def summary(results: Sequence[Result]) -> list[str]:
    """Median and worst error of each figure, and how often the verdict was right."""
    lines = []
    for name in COUNTED:
        found = errors(results, name)
        if found:
            typical = median(map(abs, found))
            worst = max(found, key=abs)
            lines.append(f"{name}: {len(found)} cases, median {typical:.1%}, worst {worst:+.1%}")
    judged = [each for each in results if each.figures or each.out_of_memory]
    right = sum(each.out_of_memory != each.fits for each in judged)
    lines.append(f"fits or not: right of {right} of {len(judged)} cases")
    return lines


def markdown(results: Sequence[Result]) -> str:
    """The tables of the docs, one a machine; a sentence where there are no results."""
    machines = dict.fromkeys(result.machine for result in results)
    if not machines:
        return NOTHING
    parts = []
    for machine in machines:
        here = [result for result in results if result.machine == machine]
        versions = next((r.measured.versions for r in here if r.measured is not None), {})
        stack = ", ".join(f"{k} {versions[k]}" for k in ("torch", "transformers", "trl"))
        parts += [
            f"{machine.device}, {machine.memory_bytes / GIB:.1f} GiB, driver {machine.driver},"
            f" {stack}, {here[-1].date[:10]}:",
            "",
            "| case | measured, GiB | estimated, GiB | error | step, s (predicted) |",
            "|---|---|---|---|---|",
            *(_row(result) for result in here),
            "",
            *(f"- {each}" for each in summary(here)),
            "",
        ]
    return "\n".join(parts).rstrip()


def _row(result: Result) -> str:
    if not result.figures:
        return f"| {result.case.name} | {verdict(result)} | | | |"
    said, took = (f"{each:.2f}" if each else "–" for each in result.step_times)
    pairs = result.figures.values()
    measured = " / ".join(f"{m / GIB:.2f}" for _, m in pairs)
    estimated = " / ".join(f"{e / GIB:.2f}" for e, _ in pairs)
    error = " / ".join(f"{e / m - 1:+.1%}" for e, m in pairs)
    return f"| {result.case.name} | {measured} | {estimated} | {error} | {took} ({said}) |"
