"""Protects the coverage study: it runs, and intervals hold a constant. test_posterior.py has the power, `benchmarks/coverage.py` the figures."""

import pytest

from benchmarks.coverage import study

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_intervals_of_a_constant_hold_it():
    """At a true rate of 0.9, neither of two holds it by chance in 1 of 100 runs."""
    held = [row["coverage"] for row in study("constant", 2, num_samples=100, num_warmup=100)]
    assert sum(held) > 0
