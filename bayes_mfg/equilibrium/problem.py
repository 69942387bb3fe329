"""One equilibrium problem: a game, its parameters on the solver's nodes, an initial population and a grid."""

import types
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_mfg.errors import InputError
from bayes_mfg.games.base import Game

from .grid import TimeGrid


class Sampled(eqx.Module):
    """A parameter over time by its values on the solver's nodes, `(M + 1, *shape)`, and at the middles of its intervals, `(M, *shape)`.

    The middles matter where a path jumps: a mean of two nodes would spread the jump over an interval.
    """

    nodes: Array
    middles: Array


class Problem(eqx.Module):
    """Everything that the equilibrium is a function of, as one pytree.

    Attributes
    ----------
    game : the game, its constants as arrays.
    arrays : parameters given as numbers on the solver nodes, `(*shape, M + 1)` each.
    middles : the same at the middles of intervals, `(*shape, M)` each.
    functions : parameters given as functions of `(t, mu)`.
    mu0 : `(d,)`.
    grid : the grid, static.
    control : whether a social planner chooses (mean field control) instead of every agent for himself, static.
    """

    game: Game
    arrays: dict[str, Array]
    middles: dict[str, Array]
    functions: dict[str, Callable[[Array, Array], Array]]
    mu0: Array
    grid: TimeGrid = eqx.field(static=True)
    control: bool = eqx.field(default=False, static=True)

    def values(self, t: Array, mu: Array, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Parameters at one moment: `arrays` already taken there, functions evaluated at `(t, mu)`."""
        return {**arrays, **{name: function(t, mu) for name, function in self.functions.items()}}

    def terminal_cost(self, mu: Array) -> Array:
        """Terminal cost `(d,)` at the last population; the planner's holds what one more agent costs all others."""
        t = jnp.asarray(self.grid.fine_times[-1], mu.dtype)
        last = {name: values[..., -1] for name, values in self.arrays.items()}

        def cost(m: Array) -> Array:
            return self.game.terminal_cost(t, m, self.values(t, m, last))

        if not self.control:
            return cost(mu)
        own, pull = jax.vjp(cost, mu)
        return own + pull(mu)[0]

    def generator(self, t: Array, value: Array, mu: Array, arrays: Mapping[str, Array]) -> tuple[Array, Array]:
        """Rates `(d, d)` and running cost `(d,)` under the best response at one moment.

        Under mean field control the cost of being in `x` holds, besides the agent's own, what one more agent in `x` costs all others:
        `sum_y mu(y) d/dmu(x) [f(y) + sum_z q(y, z) (u(z) - u(y))]` at the control as it is, through costs, rates and parameters that depend on
        the population. The planner's Hamiltonian is a sum over agents, so that the best response to `u` is the same function of it.
        Own derivation: the stationary points of the planner's Lagrangian, whose multiplier of the Kolmogorov equation is `u`.
        """
        control = self.game.best_response(t, value, mu, self.values(t, mu, arrays))

        def moment(m: Array) -> tuple[Array, Array]:
            params = self.values(t, m, arrays)
            rates = self.game.rates(t, control, m, params)
            # Off the simplex, where iterations may wander, rates that grow with a population turn negative; at zero they admit no root there.
            # NaN stays NaN.
            return jnp.where(rates < 0, 0.0, rates), self.game.running_cost(t, control, m, params)

        if not self.control:
            return moment(mu)
        (rates, cost), pull = jax.vjp(moment, mu)
        gain = mu[:, None] * (value[None, :] - value[:, None])
        return rates, cost + pull((gain, mu))[0]

    def admissible(self, times: Array, value: Array, mu: Array) -> tuple[Array, Array]:
        """Whether all rates are non-negative and all parameters within their range along a solution, `(d, M + 1)` on the nodes."""

        def moment(t: Array, v: Array, m: Array, arrays: dict[str, Array]) -> tuple[Array, Array]:
            params = self.values(t, m, arrays)
            rates = self.game.rates(t, self.game.best_response(t, v, m, params), m, params)
            # Shares may be negative by rounding, and with them rates.
            slack = 1e-9 + 1e-6 * jnp.max(jnp.abs(rates))
            known = self.game.parameters
            inside = [jnp.all(known[name].contains(given)) for name, given in params.items()]
            return jnp.all(rates >= -slack), jnp.all(jnp.array(inside))

        good, inside = jax.vmap(moment, in_axes=(0, -1, -1, -1))(times, value, mu, dict(self.arrays))
        return jnp.all(good), jnp.all(inside)

    def generators(self, times: Array, value: Array, mu: Array, arrays: Mapping[str, Array]) -> tuple[Array, Array]:
        """`generator` at many moments: `(d, d, M)` and `(d, M)` from `value`, `mu` `(d, M)` and arrays `(*shape, M)`."""
        return jax.vmap(self.generator, in_axes=(0, -1, -1, -1), out_axes=-1)(times, value, mu, dict(arrays))


def _as_float_array(x: Any, dtype: Any) -> Any:
    # Whole numbers too: `congestion=50` is a constant to differentiate by, not a new program to compile.
    # Not so whole arrays of them, which may be indices.
    scalar = isinstance(x, int | float | np.number) or (eqx.is_array(x) and x.ndim == 0 and x.dtype != bool)
    numeric = (scalar and not isinstance(x, bool)) or eqx.is_inexact_array(x)
    return jnp.asarray(x, dtype) if numeric else x


def as_arrays(game: Game, dtype: Any) -> Game:
    """The game with its constants as arrays, to differentiate by."""
    return jax.tree.map(lambda x: _as_float_array(x, dtype), game)


def _is_pure_function(function: Callable) -> bool:
    """Whether a callable's answers depend on nothing but its arguments, so that it can be a static part of a compiled call.

    It may carry no values of its own and read no global names but those of JAX's and NumPy's modules, which do not change between calls.
    """
    if not isinstance(function, types.FunctionType):
        return False
    carried = (function.__closure__, function.__defaults__, function.__kwdefaults__)
    code = function.__code__
    if any(carried) or any(isinstance(x, types.CodeType) for x in code.co_consts):
        return False
    seen = [function.__globals__[name] for name in code.co_names if name in function.__globals__]
    return all(isinstance(x, types.ModuleType) and x.__name__.split(".")[0] in ("jax", "numpy", "math") for x in seen)


def _fresh(function: Callable) -> Callable:
    return lambda t, mu: function(t, mu)


def build(game: Game, params: Mapping[str, Any], mu0: Any, grid: TimeGrid, control: bool = False) -> Problem:
    """Check what a user passed and bring it into the solver's layout.

    Parameters
    ----------
    game : any `Game`.
    params : for every parameter a constant of the parameter's shape, an array with a leading axis of `grid.points` (linear between
        points) or of all `grid.intervals + 1` solver nodes, a `Sampled`, or a function `(t, mu) -> value`.
    mu0 : `(d,)`, non-negative and of sum one.
    grid : the grid.
    control : solve for the social planner.

    Raises
    ------
    InputError : unknown or missing names, wrong shapes, or (outside of tracing) a `mu0` that is no distribution or a
        parameter outside its support.
    """
    kind = type(game).__name__
    game.check_parameters(params)
    mu0 = jnp.asarray(mu0)
    if not jnp.issubdtype(mu0.dtype, jnp.inexact):
        mu0 = mu0.astype(float)
    dtype = mu0.dtype
    if mu0.shape != (game.n_states,):
        raise InputError(f"mu0 has shape {mu0.shape}; {kind} has {game.n_states} states, so ({game.n_states},) is needed.")
    if not isinstance(mu0, jax.core.Tracer):
        known = np.asarray(mu0, dtype=float)
        if not np.all(np.isfinite(known)) or np.any(known < 0) or abs(known.sum() - 1.0) > 1e-5:
            raise InputError(f"mu0 is {known.tolist()}; shares must be non-negative and sum to one.")
        mu0 = mu0 / jnp.sum(mu0)  # shares written with six digits
    interpolation = jnp.asarray(grid.interpolation, dtype)
    arrays: dict[str, Array] = {}
    middles: dict[str, Array] = {}
    functions: dict[str, Any] = {}
    for name, given in params.items():
        if isinstance(given, Sampled):
            arrays[name] = jnp.moveaxis(jnp.asarray(given.nodes, dtype), 0, -1)
            middles[name] = jnp.moveaxis(jnp.asarray(given.middles, dtype), 0, -1)
            continue
        if callable(given):
            if isinstance(given, (eqx.Module, jax.tree_util.Partial)) or _is_pure_function(given):
                functions[name] = given
            else:
                # JAX remembers a trace by the function: a new one each time, because what `given` carries may have changed.
                fresh = _fresh(given)
                functions[name] = eqx.filter_closure_convert(fresh, jnp.zeros((), dtype), mu0)
            continue
        shape = game.parameters[name].shape
        game.parameters[name].check(given, kind)
        values = jnp.asarray(given, dtype)
        if values.shape == shape:
            arrays[name] = jnp.broadcast_to(values[..., None], (*shape, grid.intervals + 1))
        elif values.shape == (grid.intervals + 1, *shape):
            arrays[name] = jnp.moveaxis(values, 0, -1)
        elif values.shape == (grid.points, *shape):
            arrays[name] = jnp.moveaxis(jnp.tensordot(interpolation, values, axes=1), 0, -1)
        else:
            raise InputError(
                f"Parameter {name!r} has shape {values.shape}; {kind} takes {shape} or, over time, {(grid.points, *shape)}."
            )
    for name, at_nodes in arrays.items():
        middles.setdefault(name, 0.5 * (at_nodes[..., :-1] + at_nodes[..., 1:]))
    problem = Problem(as_arrays(game, dtype), arrays, middles, functions, mu0, grid, bool(control))
    _check_shapes(problem)
    return problem


def _check_shapes(problem: Problem) -> None:
    """Refuse a game whose functions do not return what `Game` says; nothing is computed."""
    game, d = problem.game, problem.game.n_states
    for name, function in problem.functions.items():
        shape = game.parameters[name].shape
        value = jax.eval_shape(function, jnp.zeros((), problem.mu0.dtype), problem.mu0)
        if jnp.shape(value) != shape:
            raise InputError(f"Parameter {name!r}: the function returns an array of shape {jnp.shape(value)}; {shape} is needed.")
    first = {name: values[..., 0] for name, values in problem.arrays.items()}

    def moment(mu: Array) -> tuple[Array, Array, Array]:
        t = jnp.zeros((), mu.dtype)
        params = problem.values(t, mu, first)
        control = game.best_response(t, mu, mu, params)
        return (
            game.rates(t, control, mu, params),
            game.running_cost(t, control, mu, params),
            game.terminal_cost(t, mu, params),
        )

    kind = type(game).__name__
    try:
        found = jax.eval_shape(moment, problem.mu0)
    except KeyError as error:
        raise InputError(f"{kind} asks for a parameter {error} that it does not declare or was not given.") from error
    for name, value, shape in zip(("rates", "running_cost", "terminal_cost"), found, ((d, d), (d,), (d,)), strict=True):
        if jnp.shape(value) != shape:
            raise InputError(f"{kind}.{name} returns an array of shape {jnp.shape(value)}; {shape} is needed.")
