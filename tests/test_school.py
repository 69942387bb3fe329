"""The 1978 outbreak: the embedded numbers are the published ones."""

import csv
from pathlib import Path

import numpy as np
import pytest

from bayes_mfg.data import load_school_influenza

PUBLISHED = Path(__file__).resolve().parents[2] / "shared/data/epidemics/influenza_england_1978_school.csv"


def test_the_fourteen_days():
    school = load_school_influenza()
    assert school.counts is not None
    assert school.totals is not None
    assert school.counts.shape == (1, 14, 3)
    assert school.states == ("S", "I", "R")
    assert school.trajectories == ("school 1978",)
    assert school.time_unit == "day"
    np.testing.assert_array_equal(school.times, np.arange(14))
    np.testing.assert_array_equal(school.totals, np.full((1, 14), 763))
    np.testing.assert_array_equal(school.mask, np.broadcast_to([False, True, False], (1, 14, 3)))
    # Anchors that everyone who has drawn this epidemic knows: three boys at first, 298 at the peak on the sixth day.
    assert school.counts[0, 0, 1] == 3
    assert school.counts[0, :, 1].max() == school.counts[0, 5, 1] == 298
    assert school.counts[0, :, 1].sum() == 1559
    assert school.provenance["first_day"] == "1978-01-22"
    assert "British Medical Journal" in school.provenance["source"]


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"{PUBLISHED} is not here (data for development, not part of the project)")
def test_against_the_file():
    with PUBLISHED.open() as file:
        rows = list(csv.DictReader(file))
    school = load_school_influenza()
    assert school.counts is not None
    assert rows[0]["date"] == school.provenance["first_day"]
    np.testing.assert_array_equal(school.counts[0, :, 1], [int(row["in_bed"]) for row in rows])
    assert school.provenance["convalescent"] == [int(row["convalescent"]) for row in rows]
