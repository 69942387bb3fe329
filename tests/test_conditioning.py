"""Protects what is said of uniqueness: singular values against dense ones, monotonicity against hand-made sums, folds where they are known."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from linear_model import Linear, population
from one_unknown import GRID, STARTS, calibration, simulated
from systems import RADII, RADIUS_CASES, solved

import bayes_mfg as bm
from bayes_mfg.equilibrium import TimeGrid, conditioning, monotonicity, solve, spectral_radius
from bayes_mfg.equilibrium.schemes import residual
from bayes_mfg.errors import InputError
from bayes_mfg.games import SIR, Emissions, LinearQuadratic
from bayes_mfg.inference import Fit, Uniqueness, uniqueness
from bayes_mfg.inference.uniqueness import FOLD, _equilibrium

SHORT = TimeGrid(2.0, 7)
D, LADDER, MU0 = 10, TimeGrid(4.0, 41), np.eye(10)[1]


def lq(**constants):
    return solve(LinearQuadratic(**constants), {"gamma": 1.3}, [0.2, 0.3, 0.5], SHORT)


def jacobian_of(eq):
    """The equations' Jacobian, unknowns in the order population, value; each state by state."""
    mu, u = (x.T for x in eq.nodes)

    def flat(z):
        m, v = z[: mu.size].reshape(mu.shape), z[mu.size :].reshape(mu.shape)
        return jnp.concatenate([part.reshape(-1) for part in residual(eq.scheme, eq.problem, m, v)])

    return np.array(jax.jacfwd(flat)(jnp.concatenate([mu.reshape(-1), u.reshape(-1)])))


def dense(eq):
    """Smallest singular values, written out: root mean squares over time, defects as rates; then the value eliminated."""
    jacobian = jacobian_of(eq)
    d, count = eq.nodes[0].T.shape
    unit = float(eq.nodes[1].max() - eq.nodes[1].min())
    dt = np.diff(eq.grid.fine_times) / (eq.grid.fine_times[-1] - eq.grid.fine_times[0])
    node, of_mu, of_u = np.zeros(count), np.ones(count), np.ones(count)
    for n in range(count - 1):
        node[n] += dt[n] / 2
        node[n + 1] += dt[n] / 2
        of_mu[n + 1] = of_u[n] = 1 / np.sqrt(dt[n])
    solution = np.concatenate([np.tile(np.sqrt(node), d), np.tile(np.sqrt(node) / unit, d)])
    defect = np.concatenate([np.tile(of_mu, d), np.tile(of_u / unit, d)])
    whole = np.linalg.svd(defect[:, None] * jacobian / solution, compute_uv=False)[-1]
    half = d * count
    a, b, c, e = jacobian[:half, :half], jacobian[:half, half:], jacobian[half:, :half], jacobian[half:, half:]
    left = np.linalg.solve(a, a - b @ np.linalg.solve(e, c))  # 1 - K
    size = np.tile(np.sqrt(node + (np.arange(count) == count - 1)), d)
    return whole, np.linalg.svd(size[:, None] * left / size, compute_uv=False)[-1]


@pytest.mark.parametrize("constants", [{}, {"congestion": 20.0, "terminal_congestion": 20.0}])
def test_the_smallest_singular_values_are_those_of_the_dense_equations(constants):
    eq = lq(**constants)
    found = conditioning(eq)
    np.testing.assert_allclose([found.smallest, found.margin], dense(eq), rtol=1e-6)


def test_figures_belong_to_the_game_and_not_to_grid_or_unit_of_cost():
    strong = LinearQuadratic(congestion=20.0, terminal_congestion=20.0)  # the end of the population enters the terminal cost
    coarse, fine = (conditioning(solve(strong, {"gamma": 1.3}, [0.2, 0.3, 0.5], TimeGrid(2.0, n))) for n in (51, 201))
    assert coarse.smallest == pytest.approx(fine.smallest, rel=0.02) and coarse.margin == pytest.approx(fine.margin, rel=0.02)
    dear = LinearQuadratic(terminal_slope=50.0, congestion=1.0, terminal_congestion=10.0)
    scaled = conditioning(solve(dear, {"gamma": 13.0}, [0.2, 0.3, 0.5], SHORT))
    assert scaled.smallest == pytest.approx(conditioning(lq()).smallest, rel=1e-6)
    assert scaled.margin == pytest.approx(conditioning(lq()).margin, rel=1e-6)


def test_without_an_answer_there_is_no_feedback():
    assert conditioning(lq(congestion=0.0, terminal_congestion=0.0)).margin == pytest.approx(1.0, rel=1e-9)


def test_a_failed_solve_has_no_figures():
    eq = solve(
        RADIUS_CASES[0].game, RADIUS_CASES[0].params, RADIUS_CASES[0].mu0, RADIUS_CASES[0].grid, method="picard", max_steps=3
    )
    assert not bool(eq.converged)
    assert np.isnan(conditioning(eq).smallest) and np.isnan(spectral_radius(eq))
    with pytest.raises(InputError, match="did not converge"):
        monotonicity(eq)


def bandwagon(price):
    return Emissions(D, cap=3.0, price=float(price), base_rate=1.1)


def mean(eq):
    return float(np.asarray(eq.mu[-1]) @ np.arange(D))


@pytest.fixture(scope="module")
def exceeding():
    """The equilibrium in which all exceed the cap, at a price of 3; at a price of 1 it is the only one."""
    eq = solve(bandwagon(1.0), {}, MU0, LADDER)
    for price in (2.0, 3.0):
        eq = solve(bandwagon(price), {}, MU0, LADDER, guess=(eq.mu, eq.value), method="newton")
    assert mean(eq) > 5.0
    return eq


def test_the_margin_falls_to_zero_at_a_fold(exceeding):
    """All exceed the cap while the price is low; at some price that equilibrium vanishes, and its margin falls with the root of the distance."""
    eq, prices, margins, step = exceeding, [3.0], [conditioning(exceeding).margin], 0.8
    while step > 1e-3:
        new = solve(bandwagon(prices[-1] + step), {}, MU0, LADDER, guess=(eq.mu, eq.value), method="newton")
        if bool(new.converged) and abs(mean(new) - mean(eq)) < 0.3:
            eq = new
            prices.append(prices[-1] + step)
            margins.append(conditioning(eq).margin)
        step = step if eq is new else step / 2
    assert margins[-1] < FOLD / 2 and margins[0] > FOLD and np.all(np.diff(margins) < 0)
    # At a fold the square of the margin is linear in the parameter.
    (p, q, r), (x, y, z) = prices[-3:], np.square(margins[-3:])
    assert (x - z) / (r - p) == pytest.approx((y - z) / (r - q), rel=0.25)


def test_the_spectral_radius_is_what_it_was():
    for case, radius in zip(RADIUS_CASES, RADII, strict=True):
        assert spectral_radius(solved(case)) == pytest.approx(radius, rel=0.1)


# Monotonicity.


class Herding(LinearQuadratic):
    """Company is cheap, late: over time company costs more than it saves."""

    def running_cost(self, t, control, mu, params):
        return super().running_cost(t, control, mu, params) - 0.3 * mu * (t > 1.5)


def test_monotone_games_are_not_violated_and_others_are():
    found = monotonicity(lq())
    assert min(found.costs, found.dynamics, found.terminal) > 0 and not found.violated
    # f = c mu: <f1 - f2, mu1 - mu2> = c |mu1 - mu2|^2 at every moment, over the horizon of 2 and in units of the value's spread.
    eq = lq()
    spread = float(eq.nodes[1].max() - eq.nodes[1].min())
    assert found.costs == pytest.approx(0.1 * 2.0 / spread, rel=1e-9)
    assert found.terminal == pytest.approx(1.0 / spread, rel=1e-9)
    eq = solve(Herding(), {"gamma": 1.3}, [0.2, 0.3, 0.5], SHORT)
    herding = monotonicity(eq)
    assert herding.costs == pytest.approx((0.1 - 0.3) * 2.0 / float(np.ptp(eq.nodes[1])), rel=1e-9)
    assert herding.terminal > 0 and herding.violated
    eq = solve(bandwagon(3.0), {}, MU0, LADDER)
    assert monotonicity(eq).terminal < 0 and monotonicity(eq).costs == pytest.approx(0.0, abs=1e-12)


def test_the_identity_behind_it_holds_along_two_solutions():
    """From one start under two terminal costs: the end of <u1 - u2, mu1 - mu2> is minus the integral of L, up to the time step."""
    grid, params = TimeGrid(10.0, 2001, substeps=1), {"beta": 0.9, "recovery": 0.2}
    a, b = (solve(SIR(infection_cost=c), params, [0.9, 0.1, 0.0], grid) for c in (0.5, 0.51))
    game = SIR(infection_cost=0.5)

    def hamiltonian(eq, k):
        rates = np.asarray(eq.rates[k])
        u, mu = np.asarray(eq.value[k]), np.asarray(eq.mu[k])
        control = game.best_response(0.0, jnp.asarray(u), jnp.asarray(mu), {n: jnp.asarray(v) for n, v in params.items()})
        other = SIR(infection_cost=float(eq.problem.game.infection_cost))
        cost = np.asarray(other.running_cost(0.0, control, jnp.asarray(mu), {n: jnp.asarray(v) for n, v in params.items()}))
        flow = mu[:, None] * rates
        return cost + (rates * (u[None, :] - u[:, None])).sum(1), flow.sum(0) - flow.sum(1)

    each = []
    for k in range(0, 2001, 20):
        (h1, q1), (h2, q2) = hamiltonian(a, k), hamiltonian(b, k)
        apart, other = np.asarray(a.mu[k] - b.mu[k]), np.asarray(a.value[k] - b.value[k])
        each.append(apart @ (h1 - h2) - other @ (q1 - q2))
    integral = np.trapezoid(each, dx=0.1)
    scale = np.trapezoid(np.abs(each), dx=0.1)
    assert abs(integral) < 0.02 * scale  # the terminal costs are equal, and so are the starts


def test_what_monotonicity_refuses():
    with pytest.raises(InputError, match="social planner"):
        monotonicity(solve(LinearQuadratic(), {"gamma": 1.3}, [0.2, 0.3, 0.5], SHORT, control=True))
    with pytest.raises(InputError, match="pairs is 0"):
        monotonicity(lq(), pairs=0)


# At the draws of a fit.


@pytest.fixture(scope="module")
def fitted():
    model = calibration(simulated(noise="dirichlet", size=1e-2, seed=1))
    return bm.inference.fit(model, method="point", prior_samples=0, starts=1, seed=0)


def test_a_unique_equilibrium_gives_no_warning(fitted):
    found = uniqueness(fitted, num_draws=3, searched=2, starts=4, pairs=8)
    assert len(found.draws) == 2 and len(found.searched) == 1 and found.failed == 0  # there is one draw
    assert not found.touches_fold and not found.several and found.warnings == ()
    assert (found.searched["converged"] == 5).all()  # four starts and the equilibrium itself
    assert (found.searched["equilibria"] == 1).all() and (found.searched["spectral_radius"] < 1).all()
    words = " ".join(found.sentences)
    assert "No violation of monotonicity was found among 8 pairs" in words and "which is no proof" in words
    assert "no second equilibrium was found, which proves nothing" in words
    # The figures of a draw are those of its equilibrium.
    row = found.draws.iloc[-1]
    place = {"chain": int(row["chain"]), "draw": int(row["draw"])}
    gamma = float(fitted.tree["posterior"]["gamma"].isel(time=0, **place))
    eq = solve(LinearQuadratic(), {"gamma": gamma}, STARTS[1], GRID)
    assert row["trajectory"] == "2" and row["smallest"] == pytest.approx(conditioning(eq).smallest, rel=1e-6)
    assert set(found.table().columns) >= {"margin", "spectral_radius", "equilibria"} and len(found.table()) == 2
    assert found.searched["trajectory"].iloc[0] == found.draws.loc[found.draws["margin"].idxmin(), "trajectory"]


def test_a_fit_that_kept_parameters_alone_has_the_same_equilibria(fitted, monkeypatch):
    groups = {"posterior": fitted.tree["posterior"].to_dataset().drop_vars(["mu", "value"])}
    groups["unconstrained_posterior"] = fitted.tree["unconstrained_posterior"].to_dataset()
    found = uniqueness(Fit(xr.DataTree.from_dict(groups), fitted.model), num_draws=1, searched=0)
    np.testing.assert_allclose(found.draws["margin"], uniqueness(fitted, num_draws=1, searched=0).draws["margin"], rtol=1e-6)
    # Of several equilibria the solver sets out from the most probable of the draw.
    model = fitted.model._changed("branched")
    model.branches = (np.zeros((2, 4, 3)), np.ones((2, 4, 3)) * np.array([5.0, 7.0])[:, None, None])
    groups["posterior"]["branch"] = (("chain", "draw", "trajectory", "belief"), np.array([[[[0.9, 0.1], [0.2, 0.8]]]]))
    module = importlib.import_module("bayes_mfg.inference.uniqueness")
    monkeypatch.setattr(module, "solve", lambda *args, guess, **options: guess)
    several = Fit(xr.DataTree.from_dict(groups), model)
    assert [float(_equilibrium(model, several, 0, 0, r)[0][1][0, 0]) for r in (0, 1)] == [5.0, 7.0]


def test_what_was_not_found_is_no_finding():
    """Radii and margins that are not numbers, and searches that failed."""
    draws = pd.DataFrame(
        [{"chain": 0, "draw": k, "trajectory": "1", "smallest": 0.1, "margin": m} for k, m in enumerate((np.nan, 0.9))]
    )
    rows = [
        {"chain": 0, "draw": k, "trajectory": "1", "spectral_radius": r, "equilibria": n, "converged": c, "attract": n}
        for k, r, n, c in ((0, np.nan, 0, 0), (1, 0.5, 1, 3))
    ]
    asked = pd.DataFrame(rows).assign(costs=np.nan, dynamics=np.nan, terminal=np.nan)
    words = " ".join(Uniqueness(draws, asked, 16, 8, 0).sentences)
    assert "from 0.5 to 0.5 at 1 draws: beliefs near the equilibria lead to them" in words
    assert "At 1 of 2 draws the spectral radius was not found" in words and "lead away" not in words
    assert "At 1 of 2 draws no second equilibrium was found, which proves nothing: 3 of 17 searches" in words
    assert "At 1 of 2 draws the search found no equilibrium at all" in words
    assert "At 1 of 2 equilibria of draws no margin could be computed" in words
    none = Uniqueness(draws, asked.iloc[:1], 16, 8, 0)
    assert "no second equilibrium" not in " ".join(none.sentences) and "spectral radius from" not in " ".join(none.sentences)


def test_what_uniqueness_refuses(fitted):
    with pytest.raises(InputError, match="num_draws is 0; a whole number of at least 1"):
        uniqueness(fitted, num_draws=0)
    with pytest.raises(InputError, match="fit is str"):
        uniqueness("fit")
    other = bm.inference.fit(Linear(population()), method="point", starts=1, prior_samples=0)
    with pytest.raises(InputError, match="has no game"):
        uniqueness(other)


@pytest.mark.long
@pytest.mark.slow
def test_a_posterior_near_a_fold_says_so(exceeding):
    """A price of 6.05 is just below the one, about 6.1, at which exceeding the cap is no equilibrium any more; the search finds the others."""
    low, high = solve(bandwagon(6.05), {}, MU0, LADDER), exceeding
    for price in (4.0, 5.0, 5.5, 5.8, 6.0, 6.05):
        high = solve(bandwagon(price), {}, MU0, LADDER, guess=(high.mu, high.value), method="newton")
    if mean(low) > 3.0:
        low = bm.equilibrium.enumerate(bandwagon(6.05), {}, MU0, LADDER, starts=8)[0].equilibrium
    data = bm.data.Population(LADDER.times[::10], proportions=0.999 * np.asarray(high.mu[::10]) + 1e-4)
    paths, noise = {"price": dist.LogNormal(np.log(6.05), 0.001)}, bm.models.Gaussian(scale=0.05)
    ends = [(e.mu[::10], e.value[::10]) for e in (low, high)]
    model = bm.models.Calibration(bandwagon(6.05), data, paths, noise, initial=MU0, substeps=10, branches=ends)
    fit = bm.inference.fit(model, method="point", starts=1, prior_samples=0)
    found = uniqueness(fit, num_draws=1, searched=1, starts=8, pairs=8)
    assert found.touches_fold and found.margin < FOLD
    assert "The posterior touches a fold: at 1 of 1 equilibria" in found.warnings[0]
    assert found.several and "a search found several equilibria" in found.warnings[1]
    assert "Monotonicity is violated of the terminal cost" in " ".join(found.sentences)
