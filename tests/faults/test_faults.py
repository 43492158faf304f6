"""What the launcher survives, on a real Slurm with real processes. `make faults` tries it all."""

from __future__ import annotations

import random

import pytest

from tests.faults.every import every
from tests.faults.fault import Fault
from tests.faults.harness import Harness

QUICK = [fault for fault in every().values() if fault.quick]
SLOW = [fault for fault in every().values() if not fault.quick]
# Other points each day's long tests would be hard to tell from a change of the code.
SEED = 1


def _survives(harness: Harness, fault: Fault, point: int) -> None:
    found = harness.find(fault, point, SEED)
    assert found.survived, f"{found.why}\nthe fault: {found.proof or 'did not hit'}"
    assert found.hits >= 1


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
def test_a_chain_survives(harness: Harness, fault: Fault) -> None:
    _survives(harness, fault, point=0)


@pytest.mark.long
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("fault", SLOW, ids=lambda fault: fault.name)
def test_a_chain_survives_too(harness: Harness, fault: Fault) -> None:
    _survives(harness, fault, point=random.Random(SEED).randrange(fault.points))
