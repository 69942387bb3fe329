"""Protects benchmarks/bike_share.py: all scores of a row are of one forecast."""

import numpy as np
import pytest

from bayes_mfg.data import Population
from benchmarks.bike_share import SETS, plain_rows


@pytest.mark.parametrize("name", ["persistence", "historical"])
def test_errors_and_bands_of_plain_forecasts_are_of_one_ensemble(name):
    """Days that all climb alike: the ensemble knows the next one exactly, and errors and CRPS say both that it does."""
    climb = np.array([0.0, 0.1, 0.25])
    offsets = {"training": (0.1, 0.2, 0.3), "weekdays": (0.4,), "weekends": (0.2,)}
    if name == "historical":  # which knows no offset
        offsets = dict.fromkeys(SETS, (0.2, 0.2, 0.2))
    sets = {}
    for part, starts in offsets.items():
        first = np.array(starts)[:, None] + climb
        days = [f"{part} {number}" for number in range(len(starts))]
        sets[part] = Population([0.0, 1.0, 2.0], proportions=np.stack([first, 1 - first], axis=-1), trajectories=days)
    rows = plain_rows(name, sets)
    assert [row["day"] for row in rows] == [day for part in sets.values() for day in part.trajectories]
    for row in rows:
        assert row["crps"] == pytest.approx(0.0, abs=1e-15)
        assert row["mu_error"] == pytest.approx(0.0, abs=1e-15)
        assert row["relative_error"] == pytest.approx(0.0, abs=1e-15)
