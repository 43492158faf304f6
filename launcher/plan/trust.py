"""Whether code that lies beside a model may run. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from launcher.errors import UsageError
from launcher.plan.types import Plan


def trusting(plan: Plan, said: bool) -> Plan:
    """The plan with the word of whoever submits it, which no file can give in their place.

    It has another identity than without: a run that was made without is not gone on with. Raises
    UsageError for a plan that asks for trust nobody `said`.
    """
    if plan.trust_remote_code and not said:
        raise UsageError(
            "the plan lets code run that lies beside its models",
            hint="if you trust their authors with all that you can do: --trust-remote-code",
        )
    if plan.trust_remote_code or not said:
        return plan
    identity = hashlib.sha256(f"{plan.identity} trusts".encode()).hexdigest()
    return replace(plan, trust_remote_code=True, identity=identity)
