#!/usr/bin/env python3
"""Memory and step times of real trainings on this machine's GPU, beside the estimate.

    python benchmarks/gpu_memory.py --out benchmarks/results/gpu_memory/h100.jsonl
    python benchmarks/gpu_memory.py --report benchmarks/results/gpu_memory/*.jsonl
    python benchmarks/gpu_memory.py --device cpu --small --out /tmp/cpu.jsonl

Every case is a run of the launcher on this machine: planned, started by the local engine, measured
by its worker; what is read is the attempt's receipt. Models are of chance, in the shapes of Qwen2.5
from 0.5B to 7B, and are made here together with tokenizer and data, so nothing is fetched. No new
case is begun that would not end within `--minutes`; results are appended to `--out` one JSON line a
case, and the same command goes on with the cases that are not in it. Cases are those that are
estimated to fit, and two that just are not.

It needs the training environment with a build of torch for CUDA. docs/gpu-memory.md has the
commands that bring the rest of it to a machine with torch and without a package index.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_cases import report
from benchmarks.gpu_cases.case import METHODS, Case, grid, ordered, small
from benchmarks.gpu_cases.machine import this_machine
from benchmarks.gpu_cases.material import Material
from benchmarks.gpu_cases.measure import measure
from benchmarks.gpu_cases.planned import Planned, chosen, plan
from benchmarks.gpu_cases.result import Machine, append, read
from launcher.errors import LauncherError
from launcher.memory.types import GIB

# Cases that are run before the two which do not fit.
_BEFORE_MISFITS = 8
# What a case may take beyond the minutes, where it was expected to end within them.
_GRACE_S = 15


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_AsWritten)
    parser.add_argument("--out", type=Path, help="the file of results, one JSON line a case")
    parser.add_argument("--minutes", type=float, default=9.0, help="when to stop (9)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a case a method of a tiny model")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--folder", type=Path, help="where models lie for now (temporary)")
    parser.add_argument("--list", action="store_true", help="show the cases, and measure nothing")
    parser.add_argument("--report", type=Path, nargs="+", help="results as Markdown tables")
    options = parser.parse_args(arguments)
    if options.report:
        print(report.markdown([result for file in options.report for result in read(file)]))
        return 0
    if options.out is None and not options.list:
        parser.error("name the file of results: --out FILE")
    if options.device == "cpu" and not options.small and not options.list:
        parser.error("a processor takes hours for the grid: add --small")
    until = time.monotonic() + options.minutes * 60
    try:
        # What was ended in its save may write a last file while the folder is taken away.
        with tempfile.TemporaryDirectory(
            dir=options.folder, prefix="gpu-memory-", ignore_cleanup_errors=True
        ) as folder:
            return _run(options, Path(folder), until)
    except LauncherError as error:
        print(f"error: {error.message}; {error.hint}", file=sys.stderr)
        return 1


class _AsWritten(argparse.RawDescriptionHelpFormatter):
    pass


def _run(options: argparse.Namespace, folder: Path, until: float) -> int:
    cluster, machine = this_machine(options.device)
    material = Material(folder, options.device)
    cases = small() if options.small else grid(METHODS)
    cases = [case for case in cases if case.method in options.methods]
    every = [plan(case, material, cluster, machine.memory_bytes) for case in cases]
    known = read(options.out) if options.out is not None else []
    done = {result.case for result in known if result.machine == machine}
    left = [each for each in in_order(every) if each.case not in done]
    print(
        f"{machine.device}, {machine.memory_bytes / GIB:.1f} GiB: {len(left)} cases,"
        f" {len(done)} done before",
        flush=True,
    )
    if options.list:
        for each in left:
            size = f"{each.total / GIB:.1f} GiB"
            fits = "" if each.fits else ", does not fit"
            print(f"{each.case.name:32} {size:>10}, {each.seconds:.0f} s{fits}")
        return 0
    # Nothing that a run needs is on a hub, and a machine without network waits for one in vain.
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    print(report.HEAD, flush=True)
    without: set[str] = set()
    for each in left:
        model = each.case.model
        making = 0.0 if material.has_weights(model) else each.making
        if model in without or time.monotonic() + making + each.seconds > until:
            continue
        try:
            material.save_weights(model)
        except LauncherError as error:
            print(error.message, flush=True)
            without.add(model)
        else:
            _measure(each, machine, options.out, folder / "runs", until + _GRACE_S)
    now_known = [result for result in read(options.out) if result.machine == machine]
    print("", *report.summary(now_known), sep="\n")
    failed = [r for r in now_known[len(done) :] if not r.figures and not r.out_of_memory]
    return 1 if failed or without else 0


def in_order(every: Sequence[Planned]) -> list[Planned]:
    """The cases to run: what fits, the cheapest information first, and two that do not."""
    fitting, misfits = chosen(every)
    order = ordered(fitting, _case, lambda each: each.seconds)
    return [*order[:_BEFORE_MISFITS], *misfits, *order[_BEFORE_MISFITS:]]


def _case(planned: Planned) -> Case:
    return planned.case


def _measure(planned: Planned, machine: Machine, out: Path, runs: Path, until: float) -> None:
    try:
        result = measure(planned, machine, runs, until)
    except LauncherError as error:
        print(f"{planned.case.name:32} {error.message}", flush=True)
        return
    if result is None:
        print(f"{planned.case.name:32} not over in time", flush=True)
        return
    append(out, result)
    print(report.line(result), flush=True)


if __name__ == "__main__":
    sys.exit(main())
