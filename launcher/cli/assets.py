"""What a chain needs from the hub, brought here before it is queued."""

from __future__ import annotations

from launcher.cli import output
from launcher.plan.types import Plan


def bring(plan: Plan) -> None:
    """Fetch what the cache lacks, and say so. Raises LauncherError."""
    from launcher.run import assets

    lacking = assets.missing(plan)
    if lacking:
        output.note(f"fetching {', '.join(str(asset) for asset in lacking)} …")
        assets.fetch(plan, lacking)
