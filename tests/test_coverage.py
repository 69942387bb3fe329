"""Protects calibration: bands hold the truth as often as they say, on a few simulated data sets. `benchmarks/coverage.py` has the full study."""

import numpy as np
import pytest

from benchmarks.coverage import study

pytestmark = pytest.mark.slow


def test_intervals_of_a_constant_hold_it():
    """At a true rate of 0.9, two or fewer of six hold it by chance in 1 of 800 runs."""
    held = [row["coverage"] for row in study("constant", 6)]
    assert sum(held) > 2


def test_bands_over_an_arc_hold_it():
    """The full study's data sets have a mean coverage of 0.89 and a standard deviation of 0.03."""
    rows = study("arc", 2)
    assert np.mean([row["coverage"] for row in rows]) > 0.78
    assert sum(row["diverging"] for row in rows) <= 10
