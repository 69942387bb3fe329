"""Protects forecasts without a mechanism: the week that is meant, the noise of a small count, the drift of each origin, and who is held out."""

import numpy as np
import pytest
import scipy.stats
from scipy.special import expit, logit

from bayes_mfg.data import Population
from bayes_mfg.inference import Historical, Persistence

WEEKS = np.arange(6.0)
COURSE = np.array([0.05, 0.1, 0.3, 0.5, 0.2, 0.1])


def counted(shares, total, names=None):
    """Counts `(R, T)` of one state, rounded from shares."""
    positive = np.rint(np.asarray(shares) * total).astype(int)
    mask = np.zeros((*positive.shape, 2), bool)
    mask[..., 0] = True
    return Population(
        WEEKS[: positive.shape[1]],
        counts=np.stack([positive, np.zeros_like(positive)], axis=-1),
        totals=np.full(positive.shape, total),
        states=["I", "S"],
        trajectories=names,
        mask=mask,
    )


def test_historical_forecasts_the_week_that_is_meant():
    past = Historical.learn(counted(np.tile(COURSE, (5, 1)), 2000))
    table = past.scores(counted(COURSE[None], 2000), origins=[0, 2], horizons=[1, 2, 3])
    for row in table.itertuples():
        assert row.median == pytest.approx(COURSE[row.origin + row.horizon], abs=0.01)
        assert row.share == pytest.approx(COURSE[row.origin + row.horizon], abs=1e-3)


def test_bands_hold_the_noise_of_a_small_count():
    """Of twenty specimens and a share that is known: quantiles of the binomial."""
    exact = Historical(np.full((6, 3), 0.3), 1e9)
    table = exact.scores(counted(np.full((1, 6), 0.3), 20), origins=[0], horizons=[1])
    low, high = scipy.stats.binom.ppf([0.05, 0.95], 20, 0.3) / 20
    assert table["low90"][0] == pytest.approx(low, abs=0.051) and table["low90"][0] < 0.3
    assert table["high90"][0] == pytest.approx(high, abs=0.051) and table["high90"][0] > 0.3


def test_every_origin_has_a_drift_of_its_own():
    rng = np.random.default_rng(0)
    steps = np.array([0.0, 0.8, 0.8, -0.9, -0.9, -0.9])
    shares = expit(logit(0.1) + np.cumsum(steps + 0.05 * rng.standard_normal((30, 6)), axis=1))
    found = Persistence.learn(counted(shares, 5000), origins=[1, 3], horizons=[1], drifting=True)
    assert found.drift[1, 1] == pytest.approx(0.8, abs=0.05)
    assert found.drift[3, 1] == pytest.approx(-0.9, abs=0.05)
    table = found.scores(counted(shares[:1], 5000), origins=[1, 3], horizons=[1]).set_index("origin")
    for origin in (1, 3):
        drift = 0.8 if origin == 1 else -0.9
        assert logit(table.loc[origin, "median"]) == pytest.approx(logit(shares[0, origin]) + drift, abs=0.1)


def test_a_whole_season_is_held_out_together():
    """States of one season are alike and seasons are not: held out one by one, the past seems to say exactly what comes."""
    seasons = np.array([0.5, 1.0, 1.5, 2.0])[:, None] * COURSE * 0.4
    shares = np.repeat(seasons, 3, axis=0)
    groups = [f"season {k}" for k in range(4) for _ in range(3)]
    data = counted(shares, 1000)
    alone, together = Historical.learn(data), Historical.learn(data, groups=groups)
    assert together.concentration < 0.2 * alone.concentration
