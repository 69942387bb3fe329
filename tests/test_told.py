"""Protects what a fit tells of itself: what was lost, figures of chains for chains alone, options it does not have; from draws that are given."""

import json

import numpy as np
import pytest
from relaxing import GAMMA, Relaxing, simulated

from bayes_mfg.errors import InputError
from bayes_mfg.inference import Fit, fit
from bayes_mfg.inference.assemble import assemble, convergence_warnings
from bayes_mfg.models import Gaussian

SHAPE = (2, 30)


@pytest.fixture(scope="module")
def model():
    return Relaxing(simulated("gaussian", 0.05, seed=1), Gaussian(scale=0.05))


def told(model, method="nuts", settings=None, **stats):
    """A fit of given draws, with the statistics of NUTS where it is one."""
    rng = np.random.default_rng(0)
    flat = np.log(GAMMA) + 0.1 * rng.standard_normal((*SHAPE, 1))
    flat = {"nuts": flat, "point": flat[:1, :1]}.get(method, flat[:1])
    nothing = np.zeros(SHAPE)
    usual = {"diverging": nothing > 0, "failed_solve": nothing > 0, "tree_depth": nothing, "energy": rng.standard_normal(SHAPE)}
    stats = {**usual, **stats} if method == "nuts" else None
    known = {"seed": 0, "wall_time": 0.0, "settings": settings or {}, "prior_samples": 0}
    return Fit(assemble(model, flat, method=method, stats=stats, **known), model)


def test_a_fit_shows_what_was_lost(model):
    lost = np.zeros(SHAPE, bool)
    lost[0, :3] = True
    sampled = told(model, failed_solve=lost)
    sampled.tree.attrs["warnings"] = json.dumps(["One.", "Two."])
    assert str(sampled).splitlines() == [
        "Fit by nuts, 2 chains x 30 draws, of gamma",
        "3 of 60 transitions (5 %) met parameters whose equilibrium was not found",
        "2 warnings: see its warnings",
    ]
    assert sampled.summary().attrs["failed_solves"] == str(sampled).splitlines()[1]
    guide = told(model, "svi", {"num_steps": 200, "skipped_updates": 4, "rejected_draws": 2})
    assert str(guide).splitlines() == [
        "Fit by svi, 30 draws, of gamma",
        "4 of 200 updates of the guide, 2 of its draws met parameters whose equilibrium was not found",
        "no warnings",
    ]
    point = told(model, "point", {"evaluations": 9, "failed_solves": 1})
    assert str(point).splitlines()[:2] == [
        "Fit by point, one point, of gamma",
        "1 of 9 evaluations of the search met parameters whose equilibrium was not found",
    ]
    assert len(str(told(model, "point")).splitlines()) == 2


def test_figures_of_chains_are_of_nuts_alone(model):
    chains = {"ess_bulk", "ess_tail", "r_hat", "mcse_mean"}
    assert chains <= set(told(model).summary())
    for method in ("svi", "ensemble"):
        table = told(model, method).summary()
        assert {"mean", "sd", "median"} <= set(table) and not chains & set(table)


def test_an_energy_that_never_moves_is_told(model):
    """Its E-BFMI is not a number, in whichever chain."""
    assert not any("E-BFMI" in sentence for sentence in convergence_warnings(told(model).tree))
    for chain in range(2):
        energy = np.random.default_rng(1).standard_normal(SHAPE)
        energy[chain] = 1.0
        assert "E-BFMI is nan" in " ".join(convergence_warnings(told(model, energy=energy).tree))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("nuts", {"num_sample": 5}),
        ("svi", {"steps": 5}),
        ("point", {"max_step": 5}),
        ("point", {"objective": "paper", "epoch": 5}),
        ("ensemble", {"member": 5}),
        ("ensemble", {"randomised": "none", "member": 5}),
        ("ensemble", {"randomised": "none", "mode": None}),
    ],
)
def test_options_that_a_method_does_not_have_are_named(model, method, options):
    with pytest.raises(InputError, match=f"^Method '{method}' has no option '{list(options)[-1]}'; see"):
        fit(model, method, **options)


def test_an_error_of_a_game_s_own_is_not_taken_for_one_of_the_call(model):
    class Broken(Relaxing):
        def trajectories(self, *_, **__):
            raise TypeError("rates() got an unexpected keyword argument 'closed'")

    with pytest.raises(TypeError, match="closed"):
        fit(Broken(model.population, Gaussian(scale=0.05)), "point")
