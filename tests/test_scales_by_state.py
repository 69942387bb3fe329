"""Protects noise with a scale for every state: recovered, kept by name of the state, ranked, judged, scored and told."""

import numpy as np
import numpyro.distributions as dist
import pytest
from relaxing import STARTS, TIMES, Relaxing, mu_of

from bayes_mfg.data import Population
from bayes_mfg.inference import check, fit, identifiability, load, scores
from bayes_mfg.models import SimplexGaussian

SCALES = np.array([0.02, 0.03, 0.025])


def noisy(seed):
    errors = SCALES * np.random.default_rng(seed).standard_normal((2, len(TIMES), 3))
    errors -= SCALES**2 / np.sum(SCALES**2) * errors.sum(axis=-1, keepdims=True)
    return Population(TIMES, proportions=mu_of(1.5, STARTS) + errors, states=["a", "b", "c"])


@pytest.fixture(scope="module")
def model():
    return Relaxing(noisy(0), SimplexGaussian(dist.LogNormal(np.log(0.03), 1.0), by_state=True))


@pytest.fixture(scope="module")
def fitted(model):
    return fit(model, "svi", guide="laplace", num_samples=400, prior_samples=50)


def test_scales_are_recovered_and_named_by_their_states(fitted, model, tmp_path):
    scale = fitted.tree["posterior"]["scale"]
    assert scale.dims == ("chain", "draw", "state")
    assert list(scale["state"].to_numpy()) == ["a", "b", "c"]
    log = np.log(scale.to_numpy()[0])
    assert np.all(np.abs(log.mean(axis=0) - np.log(SCALES)) < 3.0 * log.std(axis=0))
    # 22 errors each: the sd of the logarithm would be 1 / sqrt(44) if they were independent.
    assert np.all(log.std(axis=0) > 0.15)
    assert fitted.tree["prior"]["scale"].dims == scale.dims
    assert {"scale[a]", "scale[b]", "scale[c]"} <= set(fitted.summary().index)
    again = load(fitted.save(tmp_path / "fit.nc"), model=model)
    np.testing.assert_array_equal(again.tree["posterior"]["scale"], scale)


def test_what_is_certain_has_narrower_bands(fitted):
    replicates = fitted.tree["posterior_predictive"]["proportions"].to_numpy()
    widths = replicates.std(axis=(0, 1))[:, 1:].mean(axis=(0, 1))
    np.testing.assert_allclose(widths, SCALES * np.sqrt(1 - SCALES**2 / np.sum(SCALES**2)), rtol=0.4)
    table = scores(fitted, noisy(1))
    assert 0.3 < table["coverage50"][0] < 0.7


def test_the_data_tell_of_every_scale(model):
    found = identifiability(model, at={"gamma": 1.5, "scale": SCALES})
    assert found.verdicts["scale"].verdict in ("identified", "weak")


def test_every_scale_is_ranked(model):
    found = check(model, "svi", guide="laplace", simulations=2, draws=20, num_samples=50, seed=0)
    assert {"scale[0]", "scale[1]", "scale[2]"} <= set(found.ranks.columns)


def test_the_report_tells_every_scale(fitted, tmp_path):
    page = fitted.report(tmp_path / "report.html").read_text(encoding="utf-8")
    for state in "abc":
        assert f"scale · {state}" in page
