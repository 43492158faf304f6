"""A login node is shared: a chain is in the queue within a second."""

from __future__ import annotations

from benchmarks import submit_speed

FLOORS = 70
"""As many times what Python takes to start and end count as a second, on slow machines. (A
submission takes 35 of them.)"""


def test_a_chain_of_four_stages_is_submitted_within_a_second() -> None:
    spent = {each.what: each for each in submit_speed.measure(rounds=3)}
    allowed = max(1.0, FLOORS * spent["python -c pass"].processor)
    assert spent["launcher submit"].processor < allowed
    assert spent["launcher submit, again"].processor < allowed
    # What the controller takes to answer comes on top; here it is near.
    assert spent["launcher submit"].wall < 2 * allowed
