"""An estimate as people and programs read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.cli.output import printable, table
from launcher.cluster.gpu_types import gpu_of
from launcher.memory.lengths import lengths
from launcher.memory.types import GIB, Phase
from launcher.plan.sizing import Sized

BAR = 64
_SHADES = "█▓▒░▚▞▤▥▦▧"
# Decimal gigabytes on the box → a type of that size.
COMMON = {24: "rtx_4090", 40: "a100_40gb", 48: "l40s", 80: "h100_80gb", 141: "h200"}
_SUMS = ("allocated", "reserved", "total")


def render(case: Sized) -> str:
    """Phases × items in GiB, the peak as a bar, and the GPUs that it fits."""
    parts = [_title(case), _table(case), _bar(case.estimate.peak), _fits(case)]
    host = [f"host memory: {case.estimate.host_bytes / GIB:.1f} GiB a process"]
    host += [
        f"{size / GIB:.1f} GiB a node ({item})" for item, size in case.estimate.node_items.items()
    ]
    return "\n\n".join([*parts, ", ".join(host)])


def as_data(case: Sized) -> dict[str, Any]:
    """All of it, in bytes."""
    peak = case.estimate.peak
    trains = case.models[0]
    return {
        "name": case.stage.name,
        "method": case.stage.method,
        "models": {
            role: {
                "name": shape.name,
                "family": shape.family,
                "source": shape.source,
                "parameters": shape.parameters,
            }
            for role, shape in case.shapes.items()
        },
        "trained_parameters": sum(model.trained for model in case.models),
        "lengths": lengths(case.stage, trains.shape),
        "peft": case.stage.peft,
        "dtype": case.stage.dtype,
        "settings": case.settings,
        "stack": {
            **{name: getattr(case.stack, name) for name in case.stack.__dataclass_fields__},
            "fused": sorted(case.stack.fused),
        },
        "phases": [
            {"name": phase.name, "items": phase.items, **_sums(phase)}
            for phase in case.estimate.phases
        ],
        "peak": {"phase": peak.name, **_sums(peak)},
        "host_bytes": case.estimate.host_bytes,
        "node_items": case.estimate.node_items,
        "margin": case.margin,
        "margin_reason": case.margin_reason,
        "gpus": [
            {"gb": gb, "gpu": name, "memory_gib": size, "fits": case.fits(size)}
            for gb, name, size in _common()
        ],
    }


def render_trace(case: Sized, traced: Mapping[str, Any]) -> str:
    """What was traced beside what the formula says of the same, phase by phase."""
    name = case.stage.name
    if "refused" in traced:
        return f"{name} is not traced: {printable(traced['refused'])}"
    ours = {phase.name: phase.allocated for phase in case.estimate.phases}
    rows = [
        (phase, *_beside(ours[phase], size))
        for phase, size in traced["phases"].items()
        if phase in ours
    ]
    rows.append(("peak", *_beside(case.estimate.peak.allocated, traced["peak"])))
    lines = [
        f"{name}: one process traced in {traced['seconds']:.0f} s, allocated",
        table(("GiB", "formula", "traced", "formula is off by"), rows),
    ]
    if traced["modelled"]:
        lines.append("modelled, not executed:")
        lines += [f"  {printable(each)}" for each in traced["modelled"]]
    packages = (f"{package} {version}" for package, version in traced["versions"].items())
    return "\n".join([*lines, ", ".join(packages)])


def trace_data(case: Sized, traced: Mapping[str, Any]) -> dict[str, Any]:
    """The trace's own answer, with the formula's allocated bytes of the same."""
    formula = {phase.name: phase.allocated for phase in case.estimate.phases}
    return {**traced, "formula": formula, "formula_peak": case.estimate.peak.allocated}


def _title(case: Sized) -> str:
    stage, settings, stack = case.stage, case.settings, case.stack
    main = case.models[0]
    length = lengths(stage, main.shape)
    trained = sum(model.trained for model in case.models)
    tokens = f"{length.prompt} + {length.completion}" if length.prompt else str(length.total)
    gpus = f"{settings.processes} GPU" + ("s" if settings.processes > 1 else "")
    if settings.device == "cpu":
        gpus = gpus.replace("GPU", "CPU process").replace("processs", "processes")
    how = [gpus]
    if settings.zero_stage:
        how.append(f"ZeRO {settings.zero_stage}")
    if settings.offload != "none":
        how.append(f"offload {settings.offload}")
    how.append(f"micro-batch {settings.micro_batch} × {tokens} tokens")
    if settings.gradient_checkpointing:
        how.append("checkpointing")
    weights = stack.weights if stack.base == "dense" else stack.base
    how += [f"{weights} weights" + (", autocast" if stack.autocast else "")]
    if trained:
        how.append(stack.optimizer)
    how += [f"{stack.attention} attention", f"{stack.loss} loss"]
    shown = f"{stage.name} ({stage.method}): {main.shape.name}, {_count(main.shape.parameters)}"
    part = f"{_count(trained)} train" if trained else "none trains"
    return printable(f"{shown} parameters, {part}") + "\n" + ", ".join(how)


def _table(case: Sized) -> str:
    phases, peak = case.estimate.phases, case.estimate.peak
    items = list(dict.fromkeys(item for phase in phases for item in phase.items))
    items.sort(key=lambda item: -peak.items.get(item, 0))
    header = ("GiB", *(f"{p.name} ◀" if p is peak else p.name for p in phases))
    rows = [(item, *(_gib(phase.items.get(item, 0)) for phase in phases)) for item in items]
    rows += [(name, *(_gib(getattr(phase, name)) for phase in phases)) for name in _SUMS]
    return table(header, rows)


def _bar(peak: Phase) -> str:
    ordered = sorted(peak.items.items(), key=lambda pair: -pair[1])
    if len(ordered) > len(_SHADES):
        rest = sum(size for _, size in ordered[len(_SHADES) - 1 :])
        ordered = [*ordered[: len(_SHADES) - 1], ("the rest", rest)]
    drawn, before, end = [], 0, 0
    legend = []
    for shade, (item, size) in zip(_SHADES, ordered, strict=False):
        end += size
        # From the sums, so that the bar is as long as it is however the items round.
        upto = round(BAR * end / peak.total)
        drawn.append(shade * (upto - before))
        before = upto
        legend.append(f"{shade} {item} {size / GIB:.2f}")
    return f"{''.join(drawn)}  {peak.total / GIB:.2f} GiB ({peak.name})\n" + "  ".join(legend)


def _fits(case: Sized) -> str:
    why = f" ({case.margin_reason})" if case.margin_reason else ""
    kept = f"of each GPU {case.margin:.1%} are kept free{why}"
    rows = [
        (
            f"{gb} GB",
            name,
            f"{case.on(size).peak.total / GIB:.1f}",
            f"{size * (1 - case.margin):.1f}",
            f"{size:.1f}",
            "fits" if case.fits(size) else "does not fit",
        )
        for gb, name, size in _common()
    ]
    header = ("GPU", "such as", "takes", "usable", "of GiB", "")
    return f"{table(header, rows)}\n{kept}"


def _common() -> list[tuple[int, str, float]]:
    sizes = [(gb, name, gpu_of(name).memory_gib) for gb, name in COMMON.items()]
    return [(gb, name, size) for gb, name, size in sizes if size is not None]


def _beside(formula: int, traced: int) -> tuple[str, str, str]:
    return _gib(formula), _gib(traced), f"{formula / traced - 1:+.1%}"


def _sums(phase: Phase) -> dict[str, int]:
    return {name: getattr(phase, name) for name in _SUMS}


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}" if size else "–"


def _count(number: int) -> str:
    for size, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.2f} {name}"
    return str(number)
