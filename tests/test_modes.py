"""Several modes: they are found, told, and chains start near each, so that R-hat can see them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from direct import SLOPE, Direct, seen

from bayes_mfg.inference import find_mode, fit, nuts, point
from bayes_mfg.paths import Constant


class Squared(Direct):
    """The observed share tells the square of x, so that x and -x are as probable."""

    def trajectories(self, latents, data=None, key=None):
        found = super().trajectories(latents, data, key)
        x = (found.mu - 0.5) / SLOPE
        return found._replace(mu=0.5 + SLOPE * x**2 * jnp.array([1.0, -1.0]))


@pytest.fixture(scope="module")
def model():
    return Squared(seen(np.array([1.0, 1.0]), 0.004, 0), Constant(level=0.0, level_scale=1.0), 0.004)


def test_chains_start_at_every_mode_and_r_hat_sees_them(model):
    mode = find_mode(model, starts=6, seed=0)
    assert mode.others.shape == (1, 1)
    np.testing.assert_allclose(mode.others[0], -mode.location, rtol=1e-3)
    result = fit(model, num_chains=4, num_warmup=100, num_samples=60, starts=6, seed=0, prior_samples=0)
    x = result.tree["posterior"]["x"].isel(time=0).to_numpy()
    assert np.sign(x[:, 0]).tolist() in ([1, -1, 1, -1], [-1, 1, -1, 1])
    assert result.summary()["r_hat"].max() > 1.5
    assert any("there are several modes, and chains start near 2 of them" in told for told in result.warnings)
    assert any(told.startswith("The chains disagree") for told in result.warnings)
    one = fit(model, "svi", guide="laplace", starts=6, seed=0, prior_samples=0)
    assert any("there are several modes, and the fit is about one of them" in told for told in one.warnings)


def test_ends_that_are_one_mode_count_once(model, monkeypatch):
    """Three ends on the one side, three on the other, and one that is too improbable."""
    at = find_mode(model, starts=6, seed=0)
    monkeypatch.setattr(point, "RIVAL", 1e-9)
    assert find_mode(model, starts=6, seed=0).others.shape[0] <= 1
    far = at.factor[0, 0]
    ends = [at.location + shift * far for shift in (0.0, 1.0, 5.0, 5.5, -4.0, 12.0)]
    found = point._distinct(model, at.factor, at.location, ends[2:])
    np.testing.assert_allclose((found - at.location)[:, 0] / far, [5.0, -4.0, 12.0])


@pytest.mark.parametrize(
    ("cores", "backend", "chains", "widths"),
    [(2, "cpu", 4, [2, 2]), (2, "cpu", 3, [2, 1]), (4, "cpu", 5, [2, 1, 1, 1]), (8, "cpu", 2, [1, 1]), (8, "gpu", 4, [4])],
)
def test_chains_are_spread_over_cores_and_put_side_by_side_on_an_accelerator(monkeypatch, cores, backend, chains, widths):
    monkeypatch.setattr(nuts, "cores", lambda: list(range(cores)))
    monkeypatch.setattr(nuts.jax, "default_backend", lambda: backend)
    assert nuts.layout(chains) == widths


def test_an_uneven_number_of_chains_has_the_draws_of_each(model, monkeypatch):
    """Three chains over two threads: the same starts, whatever the layout."""
    mode = dataclasses.replace(find_mode(model, starts=6, seed=0), others=np.zeros((0, 1)))
    options = {"num_chains": 3, "num_warmup": 50, "num_samples": 10, "seed": 1}
    monkeypatch.setattr(nuts, "cores", lambda: [0, 1])
    uneven = nuts.sample(model, mode, **options)
    monkeypatch.setattr(nuts, "cores", lambda: [0])
    together = nuts.sample(model, mode, **options)
    assert uneven.flat.shape == (3, 10, 1)
    assert uneven.chain_method == "2 threads, 1 or 2 chains vectorised in each"
    np.testing.assert_allclose(uneven.flat, together.flat, rtol=1e-6)
