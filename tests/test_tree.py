"""Protects what a fit holds: unknown starts and scales of paths in posterior and summary, remarks, check sums; from draws that are given."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from bayes_mfg.data import Population, load_school_influenza, simulate
from bayes_mfg.equilibrium import TimeGrid
from bayes_mfg.errors import InputError
from bayes_mfg.games import SIR, LinearQuadratic
from bayes_mfg.inference import Fit, load
from bayes_mfg.inference.assemble import assemble
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.models import Binomial, Calibration, Dirichlet, Gaussian, Multinomial, Seeded
from bayes_mfg.paths import GaussianProcess

GRID = TimeGrid(horizon=2.0, points=11)
STARTS = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])


@pytest.fixture(scope="module")
def population():
    return simulate(LinearQuadratic(), {"gamma": 1.5}, STARTS, GRID, noise="dirichlet", size=1e-2, seed=1)


def test_unknown_initial_shares_are_in_posterior_and_summary():
    seeded = Calibration(
        SIR(), load_school_influenza(), {"beta": 1.8, "recovery": 0.5, "contact_cost": 1.0}, Binomial(), initial=Seeded()
    )
    share = np.geomspace(1e-4, 1e-2, 20).reshape(2, 10, 1)
    latent = coordinates(seeded).transforms["seed"].inv(jnp.asarray(share))
    tree = assemble(seeded, np.asarray(latent), method="nuts", seed=0, wall_time=0.0, settings={}, prior_samples=0)
    found = tree["posterior"]["mu0"]
    assert found.dims == ("chain", "draw", "trajectory", "initial_state") and list(found["initial_state"].values) == ["I"]
    np.testing.assert_allclose(found.to_numpy()[..., 0, 0], share[..., 0], rtol=1e-12)
    np.testing.assert_allclose(found[..., 0, 0], tree["posterior"]["mu"].sel(state="I").isel(time=0, trajectory=0), rtol=1e-12)
    table = Fit(tree, seeded).summary()
    assert table.loc["mu0[school 1978, I]", "median"] == pytest.approx(np.median(share), rel=1e-12)
    assert "share of I ~ LogUniform" in tree.attrs["initial"]


def test_scales_of_paths_are_in_the_posterior(population):
    process = GaussianProcess(length_scale=dist.LogNormal(0.0, 0.3), scale=dist.HalfNormal(1.0), basis=4)
    wide = Calibration(LinearQuadratic(), population, {"gamma": process}, Dirichlet(noise=1e-2), initial=STARTS, substeps=1)
    space = coordinates(wide)
    flat = np.stack([np.asarray(space.unconstrain(space.draw_prior(jax.random.key(k)))) for k in range(6)]).reshape(2, 3, -1)
    tree = assemble(wide, flat, method="nuts", seed=0, wall_time=0.0, settings={}, prior_samples=0)
    for name in ("scale", "length_scale"):
        right = np.exp(flat[..., space.names.index(f"gamma/{name}")])
        np.testing.assert_allclose(tree["posterior"][f"gamma_{name}"], right, rtol=1e-9)
    assert {"gamma_scale", "gamma_length_scale"} <= set(Fit(tree, wide).summary().index)


def test_counts_of_all_states_as_if_independent_are_remarked_upon(population):
    first = np.round(100 * population.shares[..., 0])
    two = Population(GRID.times, counts=np.stack([first, 100 - first], -1))
    game = LinearQuadratic(2)
    for observation, twice in ((Binomial(), True), (Binomial(states=["0"]), False), (Multinomial(), False)):
        other = Calibration(game, two, {"gamma": dist.LogNormal(0.0, 1.0)}, observation, initial=[0.5, 0.5], substeps=1)
        assert any("more than once" in line for line in other.observation.remarks(other.population)) == twice


def test_totals_that_a_model_of_shares_leaves_unused_are_remarked_upon(population):
    counts = np.round(100 * population.shares[..., :2]).astype(int) + 1
    two = Population(GRID.times, counts=counts)
    for observation in (Dirichlet(), Gaussian()):
        (sentence,) = (told for told in observation.remarks(two) if "whatever their totals" in told)
        assert f"({counts.sum(-1).min()} to {counts.sum(-1).max()})" in sentence
        assert not any("totals" in told for told in observation.remarks(population))


def test_a_damaged_fit_is_refused(population, tmp_path):
    """Wherever numbers of the posterior are changed; other bytes may hold nothing."""
    model = Calibration(
        LinearQuadratic(), population, {"gamma": dist.LogNormal(0.0, 1.0)}, Dirichlet(noise=1e-2), initial=STARTS, substeps=1
    )
    flat = 0.1 * np.random.default_rng(0).standard_normal((2, 10, 1))
    whole = Fit(assemble(model, flat, method="nuts", seed=0, wall_time=0.0, settings={}, prior_samples=0), model).save(
        tmp_path / "fit.nc"
    )
    content = bytearray(whole.read_bytes())
    place = content.find(np.ascontiguousarray(load(whole).tree["posterior"]["mu"].to_numpy()).tobytes()[4800:4864])
    assert place > 0
    content[place + 8] ^= 0xFF
    whole.write_bytes(content)
    with pytest.raises(InputError, match="not a saved fit"):
        load(whole)
