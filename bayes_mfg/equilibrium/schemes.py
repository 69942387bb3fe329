"""Time schemes: how one interval of the grid ties the two ends of the population and of the value together.

A scheme is a local map per interval, `(mu[n], u[n], mu[n+1], u[n+1]) -> (mu[n+1], u[n])`; an equilibrium of the discrete game is a fixed
point of all of them together with `mu[0] = mu0` and `u[M] = g(mu[M])`. Arrays are `(d, M + 1)` over nodes and `(d, M)` over intervals.
"""

import abc
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bayes_mfg.errors import InputError

from .blocks import LIBRARY, Linearisation, backward_recursion, forward_recursion, matmul, matvec
from .problem import Problem

type Pair = tuple[Array, Array]

EXPLODED = 0.1
"""How far from the simplex explicit steps may bring a population that an iteration starts from."""


@dataclasses.dataclass(frozen=True)
class Scheme(abc.ABC):
    """A time scheme."""

    @abc.abstractmethod
    def local_maps(self, problem: Problem, mu: Array, u: Array) -> Pair:
        """What each interval says `mu[n+1]` and `u[n]` should be, both `(d, M)`."""

    @abc.abstractmethod
    def sweep(self, problem: Problem, mu: Array, u: Array) -> tuple[Pair, Pair]:
        """One backward and one forward pass, `(mu, u)`, and the defects of the iterate that it started from, all `(d, M + 1)`."""

    @abc.abstractmethod
    def march(self, problem: Problem, u: Array) -> Pair:
        """Population that follows from a fixed value `u`, then the value that follows from that population, both `(d, M + 1)`.

        Both are marched through time with the rates of the moment, where a sweep freezes them at the last iterate: an epidemic then spreads in
        one pass. It starts the iterations.
        """

    @abc.abstractmethod
    def linearise(self, problem: Problem, mu: Array, u: Array) -> Linearisation:
        """Exact derivative blocks of `local_maps` and of the terminal cost."""

    @abc.abstractmethod
    def transitions(self, problem: Problem, mu: Array, u: Array) -> Pair:
        """How a sweep brings the population and the value through each interval, both `(d, d, M)` from the state in rows to that in columns."""

    def finish(self, problem: Problem, mu: Array, u: Array) -> Array:
        """Population path that the converged value implies; schemes that keep mass and sign recover them to rounding here."""
        return mu


def residual(scheme: Scheme, problem: Problem, mu: Array, u: Array) -> Pair:
    """Defects of the discrete equilibrium, `(d, M + 1)` for the population and for the value."""
    return _defects(problem, mu, u, scheme.local_maps(problem, mu, u), problem.terminal_cost(mu[:, -1]))


def _defects(problem: Problem, mu: Array, u: Array, maps: Pair, terminal: Array) -> Pair:
    next_mu, previous_u = maps
    r_mu = mu - jnp.concatenate([problem.mu0[:, None], next_mu], axis=1)
    return r_mu, u - jnp.concatenate([previous_u, terminal[:, None]], axis=1)


def _unit_tangents(inputs: int, d: int, m: int | None, dtype: jnp.dtype) -> tuple[Array, ...]:
    """Basis directions for `inputs` arrays `(d, M)`, each `(inputs * d, d, M)`: one entry is moved in every interval at once; or without `M`."""
    eye = jnp.eye(inputs * d, dtype=dtype)
    if m is None:
        return tuple(eye[:, k * d : (k + 1) * d] for k in range(inputs))
    return tuple(jnp.broadcast_to(eye[:, k * d : (k + 1) * d, None], (inputs * d, d, m)) for k in range(inputs))


def _terminal_derivative(problem: Problem, mu: Array) -> Array:
    return jax.jacfwd(problem.terminal_cost)(mu[:, -1])


def _stack_columns(columns: tuple[Array, Array]) -> Array:
    """Derivatives `(directions, d, M)` of both outputs as one block `(2d, directions, M)`."""
    return jnp.concatenate([jnp.moveaxis(part, 0, 1) for part in columns], axis=0)


def _halfway(left: Any, right: Any) -> Any:
    return 0.5 * (left + right)


class _Midpoints(NamedTuple):
    """Times, step lengths and parameter arrays at the middle of intervals, interval axis last; or of one interval."""

    times: Array
    dt: Array
    arrays: dict[str, Array]

    @classmethod
    def of(cls, problem: Problem, dtype: jnp.dtype) -> "_Midpoints":
        nodes = problem.grid.fine_times
        return cls(jnp.asarray(_halfway(nodes[:-1], nodes[1:]), dtype), jnp.asarray(np.diff(nodes), dtype), problem.middles)

    def one_by_one(self) -> "_Midpoints":
        """With the interval axis first, for loops over intervals."""
        return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), self)


@dataclasses.dataclass(frozen=True)
class ExponentialMidpoint(Scheme):
    """Second order, positive and mass-conserving for any rates; the HJB and the Kolmogorov step are adjoint to each other.

    On each interval the rates `Q` and the running cost `f` are taken at the midpoint (averages of value and population over the two ends);
    with `P = exp(dt Q)` and `c = integral of exp(s Q) f over the interval`, `u[n] = P u[n+1] + c` and `mu[n+1] = P' mu[n]`.

    The exponential is a uniformised Taylor polynomial of degree 4 at `dt / 2^squarings`, normalised so that its rows sum to one, then
    squared; the integral is Simpson's rule at the second smallest step, doubled up. Every term is non-negative, so positivity, row sums and
    adjointness hold to rounding for any `dt`; the polynomial's error is of fourth order in `dt`, far below the midpoint's own (own derivation).

    Parameters
    ----------
    squarings : number of squarings, at least 1; by default 3 for up to four states and one more for each doubling.
    """

    squarings: int | None = None

    def __post_init__(self) -> None:
        if self.squarings is not None and self.squarings < 1:
            raise InputError(f"ExponentialMidpoint: squarings is {self.squarings}; at least 1 is needed.")

    def _propagators(self, problem: Problem, mid_mu: Array, mid_u: Array) -> Pair:
        """`P (d, d, M)` and `c (d, M)` of every interval from midpoint population and value `(d, M)`."""
        at = _Midpoints.of(problem, mid_mu.dtype)
        return self._exponential(*problem.generators(at.times, mid_u, mid_mu, at.arrays), at.dt)

    def _propagator(self, problem: Problem, mid_mu: Array, mid_u: Array, at: "_Midpoints") -> Pair:
        """`P (d, d)` and `c (d,)` of the interval `at` from midpoint population and value `(d,)`."""
        return self._exponential(*problem.generator(at.times, mid_u, mid_mu, at.arrays), at.dt)

    def _exponential(self, rates: Array, cost: Array, dt: Array) -> Pair:
        return exponential(rates, cost, dt, self.squarings or 3 + max(0, int(np.ceil(np.log2(rates.shape[0] / 4)))))

    def _at_midpoints(self, problem: Problem, mu: Array, u: Array) -> Pair:
        return self._propagators(problem, _halfway(mu[:, :-1], mu[:, 1:]), _halfway(u[:, :-1], u[:, 1:]))

    def transitions(self, problem: Problem, mu: Array, u: Array) -> Pair:
        p, _ = self._at_midpoints(problem, mu, u)
        return p, p

    def local_maps(self, problem: Problem, mu: Array, u: Array) -> Pair:
        p, c = self._at_midpoints(problem, mu, u)
        return matvec(jnp.swapaxes(p, 0, 1), mu[:, :-1]), matvec(p, u[:, 1:]) + c

    def sweep(self, problem: Problem, mu: Array, u: Array) -> tuple[Pair, Pair]:
        p, c = self._at_midpoints(problem, mu, u)
        terminal = problem.terminal_cost(mu[:, -1])
        maps = matvec(jnp.swapaxes(p, 0, 1), mu[:, :-1]), matvec(p, u[:, 1:]) + c
        image = forward_recursion(p, problem.mu0), backward_recursion(p, c, terminal)
        return image, _defects(problem, mu, u, maps, terminal)

    def march(self, problem: Problem, u: Array) -> Pair:
        each = _Midpoints.of(problem, u.dtype).one_by_one()

        def forth(mu: Array, xs: tuple[_Midpoints, Array]) -> tuple[Array, Array]:
            at, v = xs
            new = mu
            for _ in range(2):
                p, _ = self._propagator(problem, _halfway(mu, new), v, at)
                new = matvec(p.T, mu)
            return new, new

        _, path = lax.scan(forth, problem.mu0, (each, _halfway(u[:, :-1], u[:, 1:]).T))
        mu = jnp.concatenate([problem.mu0[:, None], path.T], axis=1)

        def back(u: Array, xs: tuple[_Midpoints, Array]) -> tuple[Array, Array]:
            at, m = xs
            new = u
            for _ in range(2):
                p, c = self._propagator(problem, m, _halfway(u, new), at)
                new = matvec(p, u) + c
            return new, new

        last = problem.terminal_cost(mu[:, -1])
        _, path = lax.scan(back, last, (each, _halfway(mu[:, :-1], mu[:, 1:]).T), reverse=True)
        return mu, jnp.concatenate([path.T, last[:, None]], axis=1)

    def linearise(self, problem: Problem, mu: Array, u: Array) -> Linearisation:
        d, m = mu.shape[0], mu.shape[1] - 1
        ends = mu[:, :-1], mu[:, 1:], u[:, :-1], u[:, 1:]
        if d > LIBRARY:
            # One interval after the other: the tangents of all its matrices then stay in the processor's cache.
            units = _unit_tangents(2, d, None, mu.dtype)

            def one(xs: tuple[_Midpoints, Array, Array, Array, Array]) -> tuple[Array, Array]:
                at, mu_n, next_mu_n, u_n, next_u_n = xs
                return self._derivative(partial(self._propagator, problem, at=at), mu_n, next_mu_n, u_n, next_u_n, units)

            each = _Midpoints.of(problem, mu.dtype).one_by_one()
            half, p = (jnp.moveaxis(x, 0, -1) for x in lax.map(one, (each, *(x.T for x in ends))))
        else:
            half, p = self._derivative(partial(self._propagators, problem), *ends, _unit_tangents(2, d, m, mu.dtype))
        # Besides the midpoint, mu[n] and u[n+1] enter directly, through P' and P.
        left = half.at[:d, :d].add(jnp.swapaxes(p, 0, 1))
        right = half.at[d:, d:].add(p)
        return Linearisation(left, right, _terminal_derivative(problem, mu))

    @staticmethod
    def _derivative(
        propagate: Callable[[Array, Array], Pair], mu: Array, next_mu: Array, u: Array, next_u: Array, units: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        """Derivative `(2d, 2d, ...)` of the local maps by one end of the interval through its midpoint, and `P`; arrays are `(d, M)` or `(d,)`."""

        def outputs(mid_mu: Array, mid_u: Array) -> tuple[Pair, Array]:
            p, c = propagate(mid_mu, mid_u)
            return (matvec(jnp.swapaxes(p, 0, 1), mu), matvec(p, next_u) + c), p

        _, push, p = jax.linearize(outputs, _halfway(mu, next_mu), _halfway(u, next_u), has_aux=True)
        return 0.5 * _stack_columns(jax.vmap(push)(*units)), p

    def finish(self, problem: Problem, mu: Array, u: Array) -> Array:
        p, _ = self._at_midpoints(problem, mu, u)
        return forward_recursion(p, problem.mu0)


def exponential(rates: Array, cost: Array, dt: Array, squarings: int) -> tuple[Array, Array]:
    """`exp(dt Q)` and `integral_0^dt exp(s Q) f ds` for rates `(d, d, M)` with zero diagonal and cost `(d, M)`, or for one interval without `M`."""
    d = rates.shape[0]
    eye = jnp.eye(d, dtype=rates.dtype).reshape(d, d, *(1,) * (rates.ndim - 2))
    h = dt / 2**squarings
    exit_rate = jnp.sum(rates, axis=1)
    # A smooth bound just above the largest exit rate (an 8-norm): a plain maximum would have kinks where two states tie.
    # Where nobody moves the norm has no derivative; any bound does there, and zero is one.
    largest = lax.stop_gradient(jnp.max(jnp.abs(exit_rate), axis=0))
    still = largest == 0
    ratio = jnp.where(still, 1.0, exit_rate / jnp.where(still, 1.0, largest))
    eighth = jnp.sum(jnp.square(jnp.square(jnp.square(ratio))), axis=0)
    bound = jnp.where(still, 0.0, largest * jnp.sqrt(jnp.sqrt(jnp.sqrt(eighth))))
    # Every matrix is computed once: without the barriers XLA fuses a product's factors into it, and computes them anew for each of its entries.
    once = lax.optimization_barrier
    b = once(h * (rates + eye * (bound - exit_rate)[:, None]))
    theta = h * bound
    b2 = once(matmul(b, b))
    series = once(eye / 2 + b / 6 + b2 / 24)
    p = once((eye + b + matmul(b2, series)) / (1 + theta + theta**2 / 2 + theta**3 / 6 + theta**4 / 24))
    # Simpson on [0, 2h], with exp(h Q) at the midpoint.
    p_twice = once(matmul(p, p))
    c = (2 * h / 6) * (cost + 4 * matvec(p, cost) + matvec(p_twice, cost))
    p = p_twice
    for _ in range(squarings - 1):
        c = c + matvec(p, c)
        p = once(matmul(p, p))
    # Rounding in the squarings lets row sums drift by a few 1e-15 per step, which a long product of steps would add up.
    return p / jnp.sum(p, axis=1, keepdims=True), c


@dataclasses.dataclass(frozen=True)
class Paper(Scheme):
    """Explicit Euler as in arXiv 2606.23155, to reproduce that paper.

    `u[n] = u[n+1] + dt (f + Q u)(u[n+1], mu[n], gamma[n])`, `mu[n+1] = mu[n] + dt (Q' mu)(u[n], mu[n], gamma[n])`. First order; the population
    leaves the simplex once an exit rate times `dt` exceeds one.
    """

    @staticmethod
    def _left(problem: Problem, dtype: jnp.dtype) -> tuple[Array, Array, dict[str, Array]]:
        grid = problem.grid
        arrays = {name: a[..., :-1] for name, a in problem.arrays.items()}
        return jnp.asarray(grid.fine_times[:-1], dtype), jnp.asarray(np.diff(grid.fine_times), dtype), arrays

    @staticmethod
    def _backward(problem: Problem, t: Array, dt: Array, u: Array, mu: Array, arrays: dict[str, Array]) -> Array:
        rates, cost = problem.generator(t, u, mu, arrays)
        return u + dt * (cost + jnp.sum(rates * (u[None, :] - u[:, None]), axis=1))

    @staticmethod
    def _forward(problem: Problem, t: Array, dt: Array, u: Array, mu: Array, arrays: dict[str, Array]) -> Array:
        rates, _ = problem.generator(t, u, mu, arrays)
        flow = mu[:, None] * rates
        return mu + dt * (jnp.sum(flow, axis=0) - jnp.sum(flow, axis=1))

    def local_maps(self, problem: Problem, mu: Array, u: Array) -> Pair:
        times, dt, arrays = self._left(problem, mu.dtype)
        axes = (None, 0, 0, -1, -1, -1)
        forward = jax.vmap(self._forward, in_axes=axes, out_axes=-1)
        backward = jax.vmap(self._backward, in_axes=axes, out_axes=-1)
        next_mu = forward(problem, times, dt, u[:, :-1], mu[:, :-1], arrays)
        return next_mu, backward(problem, times, dt, u[:, 1:], mu[:, :-1], arrays)

    def transitions(self, problem: Problem, mu: Array, u: Array) -> Pair:
        times, dt, arrays = self._left(problem, mu.dtype)
        eye = jnp.eye(mu.shape[0], dtype=mu.dtype)[..., None]

        def steps(value: Array) -> Array:
            rates, _ = problem.generators(times, value, mu[:, :-1], arrays)
            return eye * (1.0 - dt * jnp.sum(rates, axis=1)[:, None]) + dt * rates

        return steps(u[:, :-1]), steps(u[:, 1:])

    def _values(self, problem: Problem, mu: Array) -> Array:
        times, dt, arrays = self._left(problem, mu.dtype)
        leading = {name: jnp.moveaxis(a, -1, 0) for name, a in arrays.items()}

        def back(u: Array, xs: tuple) -> tuple[Array, Array]:
            t, h, mu_n, arrays_n = xs
            u = self._backward(problem, t, h, u, mu_n, arrays_n)
            return u, u

        last = problem.terminal_cost(mu[:, -1])
        _, values = lax.scan(back, last, (times, dt, mu[:, :-1].T, leading), reverse=True)
        return jnp.concatenate([values.T, last[:, None]], axis=1)

    def _populations(self, problem: Problem, u: Array) -> Array:
        times, dt, arrays = self._left(problem, u.dtype)
        leading = {name: jnp.moveaxis(a, -1, 0) for name, a in arrays.items()}

        def forth(mu: Array, xs: tuple) -> tuple[Array, Array]:
            t, h, u_n, arrays_n = xs
            mu = self._forward(problem, t, h, u_n, mu, arrays_n)
            return mu, mu

        _, populations = lax.scan(forth, problem.mu0, (times, dt, u[:, :-1].T, leading))
        return jnp.concatenate([problem.mu0[:, None], populations.T], axis=1)

    def sweep(self, problem: Problem, mu: Array, u: Array) -> tuple[Pair, Pair]:
        values = self._values(problem, mu)
        return (self._populations(problem, values), values), residual(self, problem, mu, u)

    def march(self, problem: Problem, u: Array) -> Pair:
        mu = self._populations(problem, u)
        # The value of an iterate may ask for rates under which explicit steps explode, where those of the equilibrium do not: nobody has moved then.
        inside = jnp.all(jnp.abs(mu) <= 1.0 + EXPLODED)
        mu = jnp.where(inside, mu, problem.mu0[:, None])
        return mu, self._values(problem, mu)

    def linearise(self, problem: Problem, mu: Array, u: Array) -> Linearisation:
        d, m = mu.shape[0], mu.shape[1] - 1
        times, dt, arrays = self._left(problem, mu.dtype)
        axes = (None, 0, 0, -1, -1, -1)

        def outputs(mu_left: Array, u_left: Array, u_right: Array) -> tuple[Array, Array]:
            next_mu = jax.vmap(self._forward, in_axes=axes, out_axes=-1)(problem, times, dt, u_left, mu_left, arrays)
            previous_u = jax.vmap(self._backward, in_axes=axes, out_axes=-1)(problem, times, dt, u_right, mu_left, arrays)
            return next_mu, previous_u

        _, push = jax.linearize(outputs, mu[:, :-1], u[:, :-1], u[:, 1:])
        columns = _stack_columns(jax.vmap(push)(*_unit_tangents(3, d, m, mu.dtype)))
        right = columns.at[:, d : 2 * d].set(0.0)[:, d:]
        return Linearisation(columns[:, : 2 * d], right, _terminal_derivative(problem, mu))


SCHEMES: dict[str, type[Scheme]] = {"exponential": ExponentialMidpoint, "paper": Paper}


def get_scheme(scheme: str | Scheme) -> Scheme:
    """A scheme from its name.

    Raises
    ------
    InputError : when the name is unknown.
    """
    if isinstance(scheme, Scheme):
        return scheme
    if scheme not in SCHEMES:
        raise InputError(f"Unknown scheme {scheme!r}; choose one of {', '.join(SCHEMES)}.")
    return SCHEMES[scheme]()
