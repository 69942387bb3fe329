"""Simulated populations: equilibria of a game at known parameters, observed with noise."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from bayes_mfg.equilibrium import Code, ExponentialMidpoint, Paper, Scheme, Status, TimeGrid, solve
from bayes_mfg.equilibrium.problem import build
from bayes_mfg.equilibrium.schemes import get_scheme
from bayes_mfg.errors import DataError
from bayes_mfg.games import Game

from .population import Population
from .wording import shown

NOISES = ("none", "dirichlet", "multinomial", "gaussian", "agents")
"""What can be recorded of a population; see `simulate`."""


class Arc(eqx.Module):
    """`low + rise (4 / T^2) s (T - s)` with `s` the time since `start` and `T` the horizon: a parabola, highest in the middle.

    Source: arXiv 2606.23155, benchmarks with an arc.
    """

    low: float
    rise: float
    horizon: float = eqx.field(static=True)
    start: float = eqx.field(default=0.0, static=True)

    def __call__(self, t: ArrayLike, mu: Array) -> Array:
        s = jnp.asarray(t) - self.start
        return self.low + self.rise * (4.0 / self.horizon**2) * s * (self.horizon - s)


class Bell(eqx.Module):
    """`low + rise exp(-sharpness (s - T / 2)^2)` with `s` the time since `start` and `T` the horizon.

    Source: arXiv 2606.23155, benchmarks with a bell (sharpness 10).
    """

    low: float
    rise: float
    horizon: float = eqx.field(static=True)
    start: float = eqx.field(default=0.0, static=True)
    sharpness: float = 10.0

    def __call__(self, t: ArrayLike, mu: Array) -> Array:
        s = jnp.asarray(t) - self.start
        return self.low + self.rise * jnp.exp(-self.sharpness * (s - 0.5 * self.horizon) ** 2)


class OfPopulation(eqx.Module):
    """`low + rise mu(state)`: a parameter that follows the share of one state.

    Source: arXiv 2606.23155, population-dependent benchmarks.
    """

    low: float
    rise: float
    state: int = eqx.field(default=0, static=True)

    def __call__(self, t: ArrayLike, mu: Array) -> Array:
        return self.low + self.rise * mu[self.state]


def simulate(
    game: Game,
    params: Mapping[str, Any],
    mu0: ArrayLike,
    grid: TimeGrid,
    *,
    noise: str = "none",
    size: float | None = None,
    seed: int = 0,
    observe_every: int = 1,
    method: str = "auto",
    scheme: str | Scheme = "exponential",
    control: bool = False,
    guess: tuple[Any, Any] | None = None,
    trajectories: Sequence[str] | None = None,
    time_unit: str = "",
) -> Population:
    """Observations of a game's equilibria at known parameters.

    Parameters
    ----------
    game : the game.
    params : as `bayes_mfg.equilibrium.solve` takes them: constants, arrays `(T, ...)`, or functions `(t, mu) -> value` such as
        `Arc`.
    mu0 : initial populations `(R, d)`, or `(d,)` for one trajectory; rows are non-negative and sum to one within 1e-6.
    grid : time grid with `T` points.
    noise : what is recorded at each observed time for the population `mu`:

        - "none": `mu` itself;
        - "dirichlet": a draw from `Dirichlet(mu / size)`, as in arXiv 2606.23155 (its noise eps is `size`);
        - "multinomial": counts of `size` individuals, drawn anew at each time: samples of a large population;
        - "agents": counts of `size` agents who are the population: drawn from `mu0`, they then move independently with the transition
          probabilities of the equilibrium. The same agents are seen at each time, so that each count is multinomial around `mu` and
          the counts of different times are correlated. The probabilities are the solver's own for each of its intervals: `exp(dt Q)` with
          `Q` at the interval's midpoint under the default scheme, `1 + dt Q` under the paper's;
        - "gaussian": `mu` plus normal errors of sd `size`, cut off at zero and divided by their sum.
    size : a positive number; whole for "multinomial" and "agents"; not given for "none".
    seed : of the noise, a whole number of at least 0.
    observe_every : every so many grid points are observed, beginning with the first.
    method, scheme, control, guess : of the solver; `guess` chooses between several equilibria.
    trajectories : `R` names; "1", "2", ... where absent.
    time_unit : of the grid's times.

    Returns
    -------
    Population
        Proportions, or counts for "multinomial" and "agents". `provenance` holds the game with its constants, the true parameters on the whole
        grid (a number, `(T,)`, or `(R, T)` where they depend on the population), the initial populations, the noise and the seed.

    Raises
    ------
    DataError
        A bad argument, or an equilibrium that was not found; the sentence names the trajectory and says how its solve ended. With
        "agents" also a negative transition probability, as the paper's scheme gives where an exit rate times its step exceeds one.
    InputError
        Parameters, scheme or method that the game or the solver does not take.
    """
    starts = _check_starts(mu0, game)
    sizes = _check_noise(noise, size)
    if isinstance(observe_every, bool) or not isinstance(observe_every, int) or observe_every < 1:
        raise DataError(f"simulate: observe_every is {observe_every!r}; expected a whole number of at least 1.")
    if (grid.points - 1) // observe_every < 1:
        raise DataError(f"simulate: observe_every is {observe_every}, of {grid.points} grid points; expected two observed ones.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise DataError(f"simulate: seed is {seed!r}; expected a whole number of at least 0.")
    names = tuple(str(r + 1) for r in range(len(starts))) if trajectories is None else tuple(trajectories)
    if len(names) != len(starts):
        raise DataError(f"simulate: {len(names)} names of trajectories for {len(starts)} initial populations.")

    game.check_parameters(params)
    for name, value in params.items():
        if not callable(value):
            game.parameters[name].check(value, f"simulate: {type(game).__name__}")
    given = {name: value if callable(value) else jnp.asarray(value, float) for name, value in params.items()}
    chain = _check_chain(scheme) if noise == "agents" else None
    mu, codes, true, nodes = _equilibria(game, given, jnp.asarray(starts, float), grid, method, scheme, control, guess)
    failed = np.flatnonzero(np.asarray(codes) != Code.CONVERGED)
    if failed.size:
        raise DataError(f"simulate: trajectory {names[failed[0]]!r}: {Status(codes[failed[0]]).message}")
    rng = np.random.default_rng(seed)
    if chain is not None:
        moves = _transitions(game, given, jnp.asarray(starts, float), grid, chain, control, nodes)
        between = _between(np.asarray(moves, float), observe_every * grid.substeps, names, grid, game.state_names)
        recorded = _move(starts, between, int(sizes or 0), rng)
    else:
        observed = np.asarray(mu, float)[:, ::observe_every]
        # Single precision keeps mass to 1e-7 only.
        observed = np.maximum(observed, 0.0)
        observed /= observed.sum(axis=-1, keepdims=True)
        recorded = _record(observed, noise, sizes, rng)
    return Population(
        grid.times[::observe_every],
        **({"counts": recorded} if noise in ("multinomial", "agents") else {"proportions": recorded}),
        states=game.state_names,
        trajectories=names,
        time_unit=time_unit,
        provenance={
            "source": "simulated equilibria with known parameters",
            "game": type(game).__name__,
            "constants": _constants(game, given),
            "parameters": {name: _truth(np.asarray(true.get(name, value), float), name in true) for name, value in given.items()},
            "parameter_times": grid.times.tolist(),
            "initial": starts.tolist(),
            "noise": noise,
            "noise_size": sizes,
            "seed": seed,
            "scheme": scheme if isinstance(scheme, str) else repr(scheme),
            "substeps": grid.substeps,
            "control": control,
        },
    )


@eqx.filter_jit
def _equilibria(
    game: Game,
    params: Mapping[str, Any],
    starts: Array,
    grid: TimeGrid,
    method: str,
    scheme: str | Scheme,
    control: bool,
    guess: tuple[Any, Any] | None,
) -> tuple[Array, Array, dict[str, Array], tuple[Array, Array]]:
    """Populations `(R, T, d)`, status codes `(R,)`, the parameters that are functions, `(R, T)`, and solver nodes, `(R, M + 1, d)` each."""
    functions: dict[str, Callable[..., Array]] = {name: value for name, value in params.items() if callable(value)}

    def one(start: Array) -> tuple[Array, Array, dict[str, Array], tuple[Array, Array]]:
        eq = solve(game, params, start, grid, method=method, scheme=scheme, control=control, guess=guess)
        true = {name: jax.vmap(f)(jnp.asarray(grid.times, start.dtype), eq.mu) for name, f in functions.items()}
        return eq.mu, eq.status.code, true, eq.nodes

    return jax.vmap(one)(starts)


# By itself, so that agents take the same compiled solve as every other noise.
@eqx.filter_jit
def _transitions(
    game: Game,
    params: Mapping[str, Any],
    starts: Array,
    grid: TimeGrid,
    scheme: ExponentialMidpoint | Paper,
    control: bool,
    nodes: tuple[Array, Array],
) -> Array:
    """Transition probabilities `(R, M, d, d)` of the solver's intervals: `mu[n+1] = P[n]' mu[n]` to the solver's tolerance."""

    def one(start: Array, mu: Array, value: Array) -> Array:
        problem = build(game, params, start, grid, control)
        mu, value = mu.T, value.T
        if isinstance(scheme, ExponentialMidpoint):
            p, _ = scheme._at_midpoints(problem, mu, value)
        else:
            times, dt, arrays = scheme._left(problem, mu.dtype)
            rates, _ = problem.generators(times, value[:, :-1], mu[:, :-1], arrays)
            eye = jnp.eye(mu.shape[0], dtype=mu.dtype)[:, :, None]
            p = eye * (1 - dt * jnp.sum(rates, axis=1))[:, None] + dt * rates
        return jnp.moveaxis(p, -1, 0)

    return jax.vmap(one)(starts, *nodes)


def _between(
    moves: NDArray[np.float64], every: int, trajectories: Sequence[str], grid: TimeGrid, states: Sequence[str]
) -> NDArray[np.float64]:
    """Transition probabilities `(R, K, d, d)` from each observed time to the next, `every` solver intervals later."""
    negative = np.argwhere(moves < 0)
    if negative.size:
        r, n, x, y = negative[0]
        raise DataError(
            f"simulate: trajectory {trajectories[r]!r}: the probability to move from {states[x]} to {states[y]} at time"
            f" {shown(grid.fine_times[n])} is {moves[r, n, x, y]:.3g} in the scheme; more substeps or the scheme 'exponential' are needed."
        )
    size, intervals, d = moves.shape[:3]
    steps = moves[:, : intervals // every * every].reshape(size, -1, every, d, d)
    between = steps[:, :, 0]
    for n in range(1, every):
        between = between @ steps[:, :, n]
    # Single precision keeps sums to 1e-7 only.
    return between / between.sum(axis=-1, keepdims=True)


def _move(starts: NDArray[np.float64], between: NDArray[np.float64], agents: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Counts `(R, K + 1, d)` of agents who begin by `starts` `(R, d)` and move independently."""
    counts = [rng.multinomial(agents, starts)]
    for n in range(between.shape[1]):
        # Who is in a state is split over all states; who arrives in one is summed.
        counts.append(rng.multinomial(counts[-1], between[:, n]).sum(axis=1))
    return np.stack(counts, axis=1)


def _record(mu: NDArray[np.float64], noise: str, size: float | None, rng: np.random.Generator) -> NDArray[Any]:
    """What is recorded of populations `(R, T, d)`."""
    if noise == "none" or size is None:
        return mu
    if noise == "multinomial":
        return rng.multinomial(int(size), mu)
    if noise == "gaussian":
        noisy = np.maximum(mu + size * rng.standard_normal(mu.shape), 0.0)
        # Where noise leaves nothing at all, the population itself is recorded.
        empty = noisy.sum(axis=-1, keepdims=True) <= 0
        noisy = np.where(empty, mu, noisy)
        return noisy / noisy.sum(axis=-1, keepdims=True)
    noisy = np.zeros_like(mu)
    for place in np.ndindex(mu.shape[:-1]):
        some = mu[place] > 0  # a state without anyone stays without
        # Shares too small for a number are the smallest number: a state with someone in it is never recorded as empty.
        drawn = np.maximum(rng.dirichlet(mu[place][some] / size), np.finfo(float).tiny)
        noisy[place][some] = drawn / drawn.sum()
    return noisy


def _check_starts(mu0: ArrayLike, game: Game) -> NDArray[np.float64]:
    try:
        starts = np.atleast_2d(np.asarray(mu0, float))
    except (TypeError, ValueError) as error:
        raise DataError(f"simulate: mu0 is {mu0!r}; rows of {game.n_states} shares are needed.") from error
    if starts.ndim != 2 or starts.shape[1] != game.n_states or not len(starts):
        raise DataError(f"simulate: mu0 has shape {np.shape(mu0)}; expected (R, {game.n_states}) or ({game.n_states},).")
    for r, row in enumerate(starts):
        if not np.all(np.isfinite(row)) or np.any(row < 0) or abs(row.sum() - 1) > 1e-6:
            raise DataError(
                f"simulate: row {r} of mu0 is {', '.join(shown(x) for x in row)}; expected shares of at least 0 that sum to 1."
            )
    return starts / starts.sum(axis=1, keepdims=True)


def _check_noise(noise: str, size: float | None) -> float | None:
    if noise not in NOISES:
        raise DataError(f"simulate: noise is {noise!r}; expected one of {', '.join(NOISES)}.")
    if noise == "none":
        if size is not None:
            raise DataError(f"simulate: size is {size!r}, but there is no noise; expected none.")
        return None
    number = isinstance(size, int | float) and not isinstance(size, bool) and np.isfinite(size) and size > 0
    whole = {"multinomial": "individuals", "agents": "agents"}
    if size is None or not number or (noise in whole and size != int(size)):
        expected = f"a positive whole number of {whole[noise]}" if noise in whole else "a positive number"
        raise DataError(f"simulate: size is {size!r}; expected {expected} for {noise} noise.")
    return int(size) if noise in whole else float(size)


def _check_chain(scheme: str | Scheme) -> ExponentialMidpoint | Paper:
    """A scheme whose step is that of a Markov chain."""
    chosen = get_scheme(scheme)
    if not isinstance(chosen, ExponentialMidpoint | Paper):
        raise DataError(f"simulate: the scheme {chosen!r} has no transition probabilities that agents could move by.")
    return chosen


def _truth(values: NDArray[np.float64], on_trajectories: bool) -> Any:
    """A true parameter for the record: `(R, T)` becomes `(T,)` where all trajectories share it."""
    if on_trajectories and bool(np.all(values == values[:1])):
        values = values[0]
    return values.tolist()


def _constants(game: Game, given: Mapping[str, Any]) -> dict[str, Any]:
    """Constants of the game that were not given as parameters."""
    found = {name: getattr(game, name) for name in vars(game) if name not in given}
    return {name: np.asarray(x).tolist() for name, x in found.items() if isinstance(x, int | float | np.ndarray | jax.Array)}
