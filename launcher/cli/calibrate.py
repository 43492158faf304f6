from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from launcher.cli import output, settings
from launcher.errors import LauncherError, UsageError


@click.command()
@settings.cluster_option
@click.option("--share", is_flag=True, help="Add what your runs measured to the site's ledger.")
@settings.runs_option
@settings.json_option
def command(cluster: str | None, share: bool, runs: Path, as_json: bool) -> None:
    """Show how far the memory estimates of past runs were off, by kind of stage.

    Every plan reads the same: your newest runs, and the ledger that the cluster's profile (or
    $LAUNCHER_LEDGER) names. The correction of a plan weighs runs by how near their size is; the
    table shows it for a stage of the kind's middle size.

    \b
    launcher calibrate
    launcher calibrate --cluster mixed --share
    """
    from launcher.plan.calibration import table
    from launcher.recipe.fields import trl_version
    from launcher.run import evidence

    shared = _ledger(cluster)
    if share:
        if shared is None:
            raise UsageError(
                "there is no ledger to share with",
                hint="name a folder that everybody may write to: `ledger:` in the cluster's profile"
                f", or ${settings.LEDGER_VARIABLE}",
            )
        try:
            new, every = evidence.share(runs, Path(shared))
        except OSError as error:
            raise LauncherError(f"{error.filename or shared}: {error.strerror}") from error
        output.note(f"{new} of {every} runs were new to {shared}")
    known = evidence.gather(runs, shared)
    rows = table(known, trl_version())
    if as_json:
        data: dict[str, Any] = {"evidence": known.digest, "ledger": shared, "kinds": rows}
        output.data("calibration", data)
        return
    if not rows:
        output.note("no run has measured anything yet that an estimate could learn from")
        return
    header = ("kind", "runs", "of others", "correction", "margin", "worst", "")
    cells = [
        (
            row.kind,
            str(row.runs),
            str(row.others),
            f"{row.correction:+.1%}",
            f"{row.margin:.1%}",
            f"{row.worst:+.1%}",
            row.reason if row.current else "of another formula or TRL: not used",
        )
        for row in rows
    ]
    output.text(output.table(header, cells))


def _ledger(cluster: str | None) -> str | None:
    """The environment's, else that of a profile by name: no cluster is asked for it."""
    named = os.environ.get(settings.LEDGER_VARIABLE)
    if named:
        return str(Path(named).resolve())
    return settings.cluster(cluster).ledger if cluster is not None else None
