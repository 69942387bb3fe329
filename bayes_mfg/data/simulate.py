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

from bayes_mfg.equilibrium import Code, Scheme, Status, TimeGrid, solve
from bayes_mfg.errors import DataError
from bayes_mfg.games import Game

from .population import Population
from .wording import shown


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
        - "multinomial": counts of `size` individuals;
        - "gaussian": `mu` plus normal errors of sd `size`, cut off at zero and divided by their sum.
    size : a positive number; whole for "multinomial"; not given for "none".
    seed : of the noise, a whole number of at least 0.
    observe_every : every so many grid points are observed, beginning with the first.
    method, scheme : of the solver.
    trajectories : `R` names; "1", "2", ... where absent.
    time_unit : of the grid's times.

    Returns
    -------
    Population
        Proportions, or counts for "multinomial". `provenance` holds the game with its constants, the true parameters on the whole
        grid (a number, `(T,)`, or `(R, T)` where they depend on the population), the initial populations, the noise and the seed.

    Raises
    ------
    DataError
        A bad argument, or an equilibrium that was not found; the sentence names the trajectory and says how its solve ended.
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
    mu, codes, true = _equilibria(game, given, jnp.asarray(starts, float), grid, method, scheme)
    failed = np.flatnonzero(np.asarray(codes) != Code.CONVERGED)
    if failed.size:
        raise DataError(f"simulate: trajectory {names[failed[0]]!r}: {Status(codes[failed[0]]).message}")
    observed = np.asarray(mu, float)[:, ::observe_every]
    # Single precision keeps mass to 1e-7 only.
    observed = np.maximum(observed, 0.0)
    observed /= observed.sum(axis=-1, keepdims=True)
    recorded = _record(observed, noise, sizes, np.random.default_rng(seed))
    return Population(
        grid.times[::observe_every],
        **({"counts": recorded} if noise == "multinomial" else {"proportions": recorded}),
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
        },
    )


@eqx.filter_jit
def _equilibria(
    game: Game, params: Mapping[str, Any], starts: Array, grid: TimeGrid, method: str, scheme: str | Scheme
) -> tuple[Array, Array, dict[str, Array]]:
    """Populations `(R, T, d)`, status codes `(R,)`, and the parameters that are functions, `(R, T)`."""
    functions: dict[str, Callable[..., Array]] = {name: value for name, value in params.items() if callable(value)}

    def one(start: Array) -> tuple[Array, Array, dict[str, Array]]:
        eq = solve(game, params, start, grid, method=method, scheme=scheme)
        true = {name: jax.vmap(f)(jnp.asarray(grid.times, start.dtype), eq.mu) for name, f in functions.items()}
        return eq.mu, eq.status.code, true

    return jax.vmap(one)(starts)


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
        noisy[place][some] = rng.dirichlet(mu[place][some] / size)
    return noisy


def _check_starts(mu0: ArrayLike, game: Game) -> NDArray[np.float64]:
    starts = np.atleast_2d(np.asarray(mu0, float))
    if starts.ndim != 2 or starts.shape[1] != game.n_states or not len(starts):
        raise DataError(f"simulate: mu0 has shape {np.shape(mu0)}; expected (R, {game.n_states}) or ({game.n_states},).")
    for r, row in enumerate(starts):
        if not np.all(np.isfinite(row)) or np.any(row < 0) or abs(row.sum() - 1) > 1e-6:
            raise DataError(
                f"simulate: row {r} of mu0 is {', '.join(shown(x) for x in row)}; expected shares of at least 0 that sum to 1."
            )
    return starts / starts.sum(axis=1, keepdims=True)


def _check_noise(noise: str, size: float | None) -> float | None:
    kinds = ("none", "dirichlet", "multinomial", "gaussian")
    if noise not in kinds:
        raise DataError(f"simulate: noise is {noise!r}; expected one of {', '.join(kinds)}.")
    if noise == "none":
        if size is not None:
            raise DataError(f"simulate: size is {size!r}, but there is no noise; expected none.")
        return None
    number = isinstance(size, int | float) and not isinstance(size, bool) and np.isfinite(size) and size > 0
    if size is None or not number or (noise == "multinomial" and size != int(size)):
        expected = "a positive whole number of individuals" if noise == "multinomial" else "a positive number"
        raise DataError(f"simulate: size is {size!r}; expected {expected} for {noise} noise.")
    return int(size) if noise == "multinomial" else float(size)


def _truth(values: NDArray[np.float64], on_trajectories: bool) -> Any:
    """A true parameter for the record: `(R, T)` becomes `(T,)` where all trajectories share it."""
    if on_trajectories and bool(np.all(values == values[:1])):
        values = values[0]
    return values.tolist()


def _constants(game: Game, given: Mapping[str, Any]) -> dict[str, Any]:
    """Constants of the game that were not given as parameters."""
    found = {name: getattr(game, name) for name in vars(game) if name not in given}
    return {name: np.asarray(x).tolist() for name, x in found.items() if isinstance(x, int | float | np.ndarray | jax.Array)}
