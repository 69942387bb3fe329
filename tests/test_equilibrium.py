"""The solver: the table of cases that it must solve, what it says when it cannot, and its transformations."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import LQ_CASES, RADII, RADIUS_CASES, SIR_CASES, TABLE, Case, scheme_defect, solved

from bayes_mfg.equilibrium import Code, Status, TimeGrid, methods, solve
from bayes_mfg.equilibrium.problem import build
from bayes_mfg.equilibrium.schemes import get_scheme
from bayes_mfg.errors import InputError
from bayes_mfg.games import SIR, LinearQuadratic

# A small game for everything that is not about accuracy: one compiled solve serves most of these tests.
GAME = LinearQuadratic(congestion=0.5)
GRID = TimeGrid(2.0, 21)
MU0 = np.array([0.2, 0.3, 0.5])
OUT_OF_STEPS = "The equilibrium was not found: the iterations ran out before the residual fell below the tolerance."


def name_of(value: object) -> str:
    return str(value)


# The table of issue 2.


@pytest.mark.parametrize(("case", "scheme"), TABLE, ids=name_of)
def test_automatic_choice_solves_the_table(case: Case, scheme: str) -> None:
    """Converged, residual at most 1e-10 by the solver's account and by a NumPy recomputation, mu >= 0, mass within 1e-12."""
    eq = solved(case, "auto", scheme)
    mu, value = np.asarray(eq.mu), np.asarray(eq.value)
    assert bool(eq.converged), eq.status.message
    assert float(eq.residual) <= 1e-10
    assert scheme_defect(case, scheme, mu, value) <= 1e-10
    assert mu.min() >= 0.0
    assert np.abs(mu.sum(axis=1) - 1.0).max() <= 1e-12
    assert mu.shape == value.shape == (case.grid.points, case.game.n_states)
    assert eq.rates.shape == (case.grid.points, case.game.n_states, case.game.n_states)


def _agreement(case: Case, scheme: str) -> bool:
    newton, anderson, auto = (solved(case, method, scheme) for method in ("newton", "anderson", "auto"))
    both = bool(newton.converged) and bool(anderson.converged)
    if both:
        assert np.abs(newton.mu - anderson.mu).max() <= 1e-8
    for eq in (newton, anderson):
        if eq.converged:
            assert np.abs(eq.mu - auto.mu).max() <= 1e-8
        else:
            assert np.isnan(eq.mu).all()
    return both


AGREE = [(case, "exponential") for case in (LQ_CASES[0], LQ_CASES[1], SIR_CASES[0], SIR_CASES[2])]
# Beyond one of the two by itself from a cold start: Newton for the epidemic, Anderson for the others, and both for the paper's scheme with s = 5.
# "auto" has both and solves them all.
BEYOND_ONE = [LQ_CASES[2], LQ_CASES[3], LQ_CASES[4], *RADIUS_CASES, SIR_CASES[1]]


@pytest.mark.parametrize(("case", "scheme"), AGREE, ids=name_of)
def test_newton_and_anderson_agree(case: Case, scheme: str) -> None:
    """Two unrelated iterations find one equilibrium, within 1e-8."""
    assert _agreement(case, scheme), "both should converge here"


@pytest.mark.slow
@pytest.mark.parametrize(("case", "scheme"), [pair for pair in TABLE if pair not in AGREE], ids=name_of)
def test_newton_and_anderson_agree_on_the_rest_of_the_table(case: Case, scheme: str) -> None:
    """Within 1e-8 where both converge; where one does not, it says so with NaN and the other agrees with the automatic choice."""
    both = _agreement(case, scheme)
    assert both or case in BEYOND_ONE


@pytest.mark.parametrize(("case", "radius"), list(zip(RADIUS_CASES, RADII, strict=True)), ids=name_of)
@pytest.mark.parametrize("scheme", ["paper", "exponential"])
def test_repelling_cases_repel(case: Case, radius: float, scheme: str) -> None:
    """The two hard cases have the spectral radius that the issue states, so that Newton and not luck solves them.

    The paper's sweep passes the new value on to the population; the default scheme's freezes both at the old iterate, so that two
    of its sweeps make one of the paper's and its radius is the root.
    """
    eq = solved(case, "auto", scheme)
    problem = build(case.game, case.params, case.mu0, case.grid)
    shape = (3, case.grid.points)

    def sweep(z: jax.Array) -> jax.Array:
        image, _ = get_scheme(scheme).sweep(problem, z[: z.size // 2].reshape(shape), z[z.size // 2 :].reshape(shape))
        return jnp.concatenate([part.reshape(-1) for part in image])

    jacobian = jax.jit(jax.jacfwd(sweep))(jnp.concatenate([node.T.reshape(-1) for node in eq.nodes]))
    measured = np.abs(np.linalg.eigvals(np.asarray(jacobian))).max()
    sweeps = 1 if scheme == "paper" else 2
    assert measured**sweeps == pytest.approx(radius, rel=0.2)


def _wide_lq(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    bounds = {
        "gamma": (0.1, 10.0),
        "congestion": (0.01, 100.0),
        "terminal_congestion": (0.01, 50.0),
        "terminal_slope": (0.1, 20.0),
        "base_rate": (0.1, 5.0),
    }
    return {name: np.exp(rng.uniform(*np.log(b), n)) for name, b in bounds.items()}


def _wide_sir(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    bounds = {"beta": (0.05, 3.0), "recovery": (0.02, 1.0), "contact_cost": (0.02, 5.0), "infection_cost": (0.02, 10.0)}
    return {name: np.exp(rng.uniform(*np.log(b), n)) for name, b in bounds.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LQ", "SIR"])
def test_a_thousand_draws_from_wide_priors_converge(kind: str) -> None:
    """At least 99.9 % converge under jit(vmap); each of the others, among them three poisoned ones, says so and is all NaN."""
    n, rng = 1000, np.random.default_rng(20260101)
    if kind == "LQ":
        game, params, grid = LinearQuadratic(), _wide_lq(rng, n), TimeGrid(2.0, 100)
        mu0 = rng.dirichlet(np.ones(3), n)
        poison = "gamma"
    else:
        game, params, grid = SIR(), _wide_sir(rng, n), TimeGrid(40.0, 100)
        infected = np.exp(rng.uniform(np.log(1e-4), np.log(0.3), n))
        mu0 = np.stack([1.0 - infected, infected, np.zeros(n)], axis=1)
        poison = "beta"
    params = {name: np.concatenate([values, values[:3]]) for name, values in params.items()}
    mu0 = np.concatenate([mu0, mu0[:3]])
    params[poison][n:] = [np.nan, np.inf, -np.inf]
    run = jax.jit(jax.vmap(lambda p, m: solve(game, p, m, grid)))
    parts = [run({name: values[k : k + 59] for name, values in params.items()}, mu0[k : k + 59]) for k in range(0, n + 3, 59)]
    eq = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[(p.mu, p.value, p.residual, p.status.code) for p in parts])
    mu, value, residual, code = eq
    good = code == Code.CONVERGED
    assert good[:n].sum() >= 0.999 * n, Status(code[:n]).message
    assert not good[n:].any()
    assert residual[good].max() <= 1e-10
    assert mu[good].min() >= 0.0
    assert np.abs(mu[good].sum(axis=-1) - 1.0).max() <= 1e-12
    assert np.isfinite(value[good]).all()
    assert np.isnan(mu[~good]).all() and np.isnan(value[~good]).all()


# What it says when it cannot.


def test_failed_solve_is_nan_with_nan_gradient_and_a_sentence() -> None:
    """A solve that runs out of iterations cannot be mistaken for an answer, nor can its gradient."""

    def loss(gamma: jax.Array) -> tuple[jax.Array, object]:
        eq = solve(GAME, {"gamma": gamma}, MU0, GRID, method="newton", max_steps=1)
        return jnp.sum(eq.mu**2), eq

    (value, eq), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(1.55)
    assert not bool(eq.converged)
    assert int(eq.status.code) == Code.MAX_STEPS
    assert eq.status.message == OUT_OF_STEPS
    assert np.isnan(value) and np.isnan(gradient)
    assert np.isnan(eq.mu).all() and np.isnan(eq.value).all()
    assert float(eq.residual) > eq.tolerance


@pytest.mark.parametrize("method", ["anderson", "picard"])
def test_sweeps_that_run_out_say_so(method: str) -> None:
    """The sweeping methods keep count as Newton does."""
    eq = solve(GAME, {"gamma": 1.55}, MU0, GRID, method=method, max_steps=2)
    assert not bool(eq.converged) and int(eq.iterations.sum()) == 2
    assert eq.status.message == OUT_OF_STEPS
    assert np.isnan(eq.mu).all() and np.isnan(eq.value).all()


def test_automatic_choice_that_runs_out_says_so() -> None:
    """One iteration of each method is not enough for strong coupling, and the result says so."""
    case = RADIUS_CASES[0]
    eq = solve(case.game, case.params, case.mu0, GRID, max_steps=1)
    assert not bool(eq.converged)
    assert "not found" in eq.status.message
    assert np.isnan(eq.mu).all() and np.isnan(eq.value).all()


def test_where_the_rescue_fails_newton_goes_on_from_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without patience, and without marches, Newton from a cold start is all that the second attempt has; from the sweeps' end it arrives."""
    monkeypatch.setattr(methods, "PATIENCE", 0)
    monkeypatch.setattr(methods, "RESCUE_MARCHES", 0)
    case, scheme = SIR_CASES[1], get_scheme("exponential")

    @jax.jit
    def found() -> tuple[methods.State, methods.State]:
        problem = build(case.game, case.params, case.mu0, case.grid, False)
        begin = methods.start(scheme, problem)
        cold = methods.newton(scheme, problem, begin, tol=1e-11, max_steps=60)
        return cold, methods.automatic(scheme, problem, begin, tol=1e-11, max_steps=60)

    cold, automatic = found()
    assert float(cold.size) > 1e-4 and bool(cold.stalled)
    assert float(automatic.size) <= 1e-11
    assert int(automatic.steps[0]) == 0
    assert int(automatic.steps[2]) > int(cold.steps[2])


@pytest.mark.parametrize("gamma", [np.nan, np.inf, 0.0])
def test_cost_that_is_not_finite_is_named(gamma: float) -> None:
    """A parameter at which the costs are not finite ends at once, as NOT_FINITE."""
    eq = jax.jit(lambda gamma: solve(GAME, {"gamma": gamma}, MU0, GRID))(gamma)
    assert int(eq.status.code) == Code.NOT_FINITE, eq.status.message
    assert "not finite" in eq.status.message
    assert np.isnan(eq.mu).all()


@pytest.mark.parametrize("gamma", [np.nan, -1.0, np.where(np.arange(GRID.points) == 3, -0.5, 1.0), "high"], ids=str)
def test_parameters_outside_their_support_are_refused(gamma: object) -> None:
    """What is traced cannot be looked at; what is not, is."""
    with pytest.raises(InputError, match=r"LinearQuadratic: gamma is .*(range|number)"):
        solve(GAME, {"gamma": gamma}, MU0, GRID)


@pytest.mark.parametrize("case", LQ_CASES[:6], ids=name_of)
def test_paper_scheme_never_calls_an_exploded_population_converged(case: Case) -> None:
    """Explicit Euler leaves the simplex once dt times an exit rate exceeds one; what it then finds is no equilibrium."""
    eq = solved(case, "auto", "paper")
    if eq.converged:
        assert float(eq.mu.min()) >= -0.1
        assert float(jnp.abs(eq.mu.sum(axis=1) - 1.0).max()) <= 1e-9
    else:
        assert np.isnan(eq.mu).all()


def test_poisoned_solves_in_a_large_batch_are_not_called_converged() -> None:
    """On the CPU, XLA's vectorised maximum over a large batch drops NaN: a residual that is only a maximum then reads zero."""
    gammas = jnp.concatenate([jnp.linspace(0.8, 3.0, 64), jnp.asarray([jnp.nan, jnp.inf, -jnp.inf])])
    run = jax.jit(jax.vmap(lambda g: solve(GAME, {"gamma": g}, MU0, GRID, method="anderson")))
    eq = run(gammas)
    assert eq.converged[:64].all()
    assert (np.asarray(eq.status.code[64:]) == Code.NOT_FINITE).all(), eq.status.code[64:]
    assert np.isnan(eq.mu[64:]).all() and np.isnan(eq.value[64:]).all()


def test_status_of_a_batch_counts_each_ending() -> None:
    """One sentence per way of ending, with how many ended so."""
    message = Status(jnp.asarray([0, 0, 1, 3])).message
    assert message.startswith("2 of 4: The equilibrium was found")
    assert "1 of 4: The equilibrium was not found: the iterations ran out" in message
    assert "1 of 4: The equilibrium was not found: the game's costs or rates are not finite" in message


# Transformations, precisions, starting points.


def test_transformations_compose() -> None:
    """jit(vmap(grad)) and a loop of jitted grads give the same numbers."""

    def loss(gamma: jax.Array, mu0: jax.Array) -> jax.Array:
        return jnp.sum(solve(GAME, {"gamma": gamma}, mu0, GRID).mu[:, 0] ** 2)

    gammas = jnp.asarray([0.8, 1.55, 3.0])
    mu0s = jnp.asarray([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.0, 0.0, 1.0]])
    single = jax.jit(jax.grad(loss, argnums=(0, 1)))
    one_by_one = [single(g, m) for g, m in zip(gammas, mu0s, strict=True)]
    batched = jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1))))(gammas, mu0s)
    for k, (d_gamma, d_mu0) in enumerate(one_by_one):
        np.testing.assert_allclose(batched[0][k], d_gamma, rtol=1e-8)
        np.testing.assert_allclose(batched[1][k], d_mu0, rtol=1e-8)


def test_batch_of_solves_carries_its_statuses() -> None:
    """Under vmap every solve keeps its own status; one that fails leaves its neighbours alone."""
    gammas = jnp.asarray([1.0, jnp.nan, 2.0])
    eq = jax.jit(jax.vmap(lambda g: solve(GAME, {"gamma": g}, MU0, GRID)))(gammas)
    assert eq.converged.tolist() == [True, False, True]
    assert "2 of 3: The equilibrium was found" in eq.status.message
    assert np.isnan(eq.mu[1]).all() and np.isfinite(eq.mu[0]).all() and np.isfinite(eq.mu[2]).all()
    alone = solve(GAME, {"gamma": 2.0}, MU0, GRID)
    np.testing.assert_allclose(eq.mu[2], alone.mu, atol=1e-9)


def test_single_precision_stays_single() -> None:
    """float32 in, float32 out, at a tolerance that float32 can reach; within 1e-4 of the double-precision answer."""
    double = solve(GAME, {"gamma": 1.55}, MU0, GRID)
    eq = solve(GAME, {"gamma": np.float32(1.55)}, jnp.asarray(MU0, jnp.float32), GRID)
    assert eq.mu.dtype == eq.value.dtype == eq.rates.dtype == jnp.float32
    assert eq.tolerance > double.tolerance
    assert bool(eq.converged), eq.status.message
    np.testing.assert_allclose(eq.mu, double.mu, atol=1e-4)
    np.testing.assert_allclose(eq.mu.sum(axis=1), 1.0, atol=1e-6)


def test_picard_converges_on_weak_coupling() -> None:
    """The plain method works where theory says that it must, and reports its own iterations only."""
    eq = solve(GAME, {"gamma": 1.55}, MU0, GRID, method="picard")
    auto = solve(GAME, {"gamma": 1.55}, MU0, GRID)
    assert bool(eq.converged), eq.status.message
    np.testing.assert_allclose(eq.mu, auto.mu, atol=1e-9)
    assert int(eq.iterations[0]) > 0 and eq.iterations[1:].tolist() == [0, 0]


def test_guess_at_the_solution_needs_no_iteration() -> None:
    """A warm start is used: from the solution itself there is nothing left to do."""
    cold = solve(GAME, {"gamma": 1.55}, MU0, GRID)
    warm = solve(GAME, {"gamma": 1.55}, MU0, GRID, guess=(cold.mu, cold.value))
    assert int(cold.iterations.sum()) > 0
    assert int(warm.iterations.sum()) == 0
    np.testing.assert_allclose(warm.mu, cold.mu, atol=1e-11)


# The ways to give a parameter.


class Affine(eqx.Module):
    """gamma = level + slope * mu(0)."""

    level: jax.Array
    slope: jax.Array

    def __call__(self, t: jax.Array, mu: jax.Array) -> jax.Array:
        return self.level + self.slope * mu[0]


@jax.jit
def _gradients_of_three_forms(theta: jax.Array) -> tuple[jax.Array, ...]:
    def closure(theta: jax.Array) -> jax.Array:
        params = {"gamma": lambda t, mu: theta[0] + theta[1] * mu[0]}
        return jnp.sum(solve(GAME, params, MU0, GRID).mu[:, 0])

    def module(theta: jax.Array) -> jax.Array:
        return jnp.sum(solve(GAME, {"gamma": Affine(theta[0], theta[1])}, MU0, GRID).mu[:, 0])

    return *jax.value_and_grad(closure)(theta), *jax.value_and_grad(module)(theta)


def test_population_dependent_parameter_as_closure_and_as_module_agree() -> None:
    """A lambda that closes over a traced array and a module that carries it give the same value and the same gradient."""
    theta = jnp.asarray([0.4, 2.0])
    closure, d_closure, module, d_module = _gradients_of_three_forms(theta)
    assert np.isfinite(closure) and np.all(np.abs(d_closure) > 1e-4)
    np.testing.assert_allclose(closure, module, rtol=1e-12)
    np.testing.assert_allclose(d_closure, d_module, rtol=1e-10)
    step = 1e-5
    for k in range(2):
        up, down = (_gradients_of_three_forms(theta.at[k].add(sign * step))[0] for sign in (1, -1))
        assert float(d_closure[k]) == pytest.approx(float(up - down) / (2 * step), rel=1e-5)


def test_constant_array_and_function_of_time_agree() -> None:
    """A number, an array over grid points and a function that returns it are one parameter; so are a path and its function."""
    constant = solve(GAME, {"gamma": 1.55}, MU0, GRID).mu
    for gamma in (jnp.full(GRID.points, 1.55), lambda t, mu: jnp.asarray(1.55, mu.dtype)):
        np.testing.assert_allclose(solve(GAME, {"gamma": gamma}, MU0, GRID).mu, constant, atol=1e-10)
    path = 1.0 + 0.5 * GRID.times
    np.testing.assert_allclose(
        solve(GAME, {"gamma": path}, MU0, GRID).mu,
        solve(GAME, {"gamma": lambda t, mu: 1.0 + 0.5 * t}, MU0, GRID).mu,
        atol=1e-10,
    )


def test_parameter_on_all_solver_nodes() -> None:
    """With substeps, an array over the solver's nodes is taken as it stands, one over grid points is interpolated."""
    grid = TimeGrid(2.0, 11, substeps=2)
    on_points = 1.0 + 0.5 * grid.times
    on_nodes = 1.0 + 0.5 * grid.fine_times
    a, b = (solve(GAME, {"gamma": gamma}, MU0, grid) for gamma in (on_points, on_nodes))
    np.testing.assert_allclose(a.mu, b.mu, atol=1e-12)
    assert a.mu.shape == (11, 3) and a.nodes[0].shape == (21, 3)


def test_guesses_can_be_mapped_over_and_carry_no_derivative() -> None:
    starts = jnp.asarray([MU0, [0.6, 0.3, 0.1]])
    near = jax.vmap(lambda mu0: solve(GAME, {"gamma": 1.5}, mu0, GRID))(starts)

    def total(gamma, mu, value):
        return jnp.sum(jax.vmap(lambda *z: solve(GAME, {"gamma": gamma}, z[0], GRID, guess=z[1:]).mu ** 2)(starts, mu, value))

    right = jax.grad(lambda gamma: jnp.sum(jax.vmap(lambda mu0: solve(GAME, {"gamma": gamma}, mu0, GRID).mu ** 2)(starts)))(1.6)
    by_gamma, *by_guess = jax.grad(total, argnums=(0, 1, 2))(1.6, near.mu, near.value)
    np.testing.assert_allclose(by_gamma, right, rtol=1e-8)
    assert not np.any(by_guess[0]) and not np.any(by_guess[1])


# Error sentences.


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": "bisection"}, "Unknown method 'bisection'; choose one of auto, newton, anderson, picard."),
        ({"scheme": "euler"}, "Unknown scheme 'euler'; choose one of exponential, paper."),
        ({"params": {"gamma": 1.0, "gama": 1.0}}, "LinearQuadratic has no parameter 'gama'"),
        ({"params": {}}, "LinearQuadratic needs the parameter 'gamma'; got none."),
        ({"params": {"gamma": np.ones(20)}}, r"Parameter 'gamma' has shape \(20,\)"),
        ({"params": {"gamma": np.ones((21, 2))}}, r"Parameter 'gamma' has shape \(21, 2\)"),
        ({"mu0": np.ones(4) / 4}, r"mu0 has shape \(4,\); LinearQuadratic has 3 states, so \(3,\) is needed."),
        ({"mu0": np.array([0.5, 0.5, 0.5])}, "shares must be non-negative and sum to one"),
        ({"mu0": np.array([1.5, -0.5, 0.0])}, "shares must be non-negative and sum to one"),
        ({"mu0": np.array([np.nan, 0.5, 0.5])}, "shares must be non-negative and sum to one"),
        ({"guess": (np.ones((5, 3)), np.ones((5, 3)))}, r"guess must hold two arrays of shape \(21, 3\)"),
        ({"guess": (np.ones((21, 2)), np.ones((21, 2)))}, r"guess must hold two arrays of shape \(21, 3\)"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_input_gets_one_sentence(change: dict, sentence: str) -> None:
    """The place and the value are named, before anything is compiled."""
    arguments = {"game": GAME, "params": {"gamma": 1.55}, "mu0": MU0, "grid": GRID, **change}
    with pytest.raises(InputError, match=sentence):
        solve(**arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"horizon": 0.0}, "horizon is 0.0; a positive number is needed"),
        ({"horizon": -1.0}, "horizon is -1.0"),
        ({"horizon": np.inf}, "horizon is inf"),
        ({"horizon": 1.0, "points": 1}, "points is 1; a whole number of at least 2"),
        ({"horizon": 1.0, "points": 2.5}, "points is 2.5"),
        ({"horizon": 1.0, "substeps": 0}, "substeps is 0; a whole number of at least 1"),
        ({"horizon": 1.0, "start": np.nan}, "start is nan; a finite number"),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_bad_grid_gets_one_sentence(arguments: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        TimeGrid(**arguments)


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        ([0.0, 1.0, 1.0], "times do not increase at index 1: 1.0 then 1.0"),
        ([0.0, 2.0, 1.0], "times do not increase at index 1: 2.0 then 1.0"),
        ([0.0, np.nan, 1.0], "times do not increase at index 0"),
        ([0.0, 1.0, np.inf], "times do not increase at index 2"),
        ([0.0], r"times has shape \(1,\)"),
        ([[0.0, 1.0]], r"times has shape \(1, 2\)"),
    ],
    ids=str,
)
def test_bad_times_get_one_sentence(times: list, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        TimeGrid.from_times(np.asarray(times))


class Scalar(LinearQuadratic):
    """A running cost without states."""

    def running_cost(self, *moment):
        return super().running_cost(*moment).sum()


class Mistaken(LinearQuadratic):
    """A misspelt parameter."""

    def terminal_cost(self, t, mu, params):
        return params["gama"] * mu


@pytest.mark.parametrize(
    ("game", "words"), [(Scalar(), "running_cost returns .* shape \\(\\)"), (Mistaken(), "asks for a parameter 'gama'")]
)
def test_games_that_break_their_interface_are_refused(game: LinearQuadratic, words: str) -> None:
    with pytest.raises(InputError, match=words):
        solve(game, {"gamma": 1.0}, MU0, GRID)
