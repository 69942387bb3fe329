"""Distributions of shares with normal errors that sum to zero: independent between times, and along a trajectory."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax
from numpyro.distributions import constraints


class SimplexNormal(dist.Distribution):
    """Normal errors of shares, independent but for their sum, which is zero.

    Errors `e_k` with standard deviations `a_k` are normal given that they sum to zero: with `A = sum_k a_k^2` their covariance is
    `diag(a^2) - a^2 a^2' / A`, and the density, with respect to all shares but one, is `prod_k N(e_k; 0, a_k^2) / N(0; 0, A)`.

    Parameters
    ----------
    loc : `(..., k)`, which sums to one.
    spread : `a`, `(k,)` or like `loc`.
    """

    arg_constraints: ClassVar = {"loc": constraints.real_vector, "spread": constraints.real_vector}
    support = constraints.real_vector
    pytree_data_fields = ("loc", "spread")

    def __init__(self, loc: Array, spread: Array, *, validate_args: bool | None = None) -> None:
        self.loc, self.spread = loc, jnp.broadcast_to(spread, loc.shape)
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Array:
        return self.loc

    def log_prob(self, value: Array) -> Array:
        each = dist.Normal(self.loc, self.spread).log_prob(value).sum(axis=-1)
        return each - dist.Normal(0.0, jnp.sqrt(jnp.sum(self.spread**2, axis=-1))).log_prob(0.0)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        error = self.spread * jax.random.normal(key, (*sample_shape, *self.loc.shape), self.loc.dtype)
        square = self.spread**2
        return self.loc + error - square / square.sum(axis=-1, keepdims=True) * error.sum(axis=-1, keepdims=True)


class SimplexWalk(dist.Distribution):
    """Normal errors of shares along trajectories that forget themselves with time: an Ornstein-Uhlenbeck process with the sum zero.

    With `r_t = exp(-(time since the row before) / memory)` an error is `e_t = r_t e_(t-1) + sqrt(1 - r_t^2) x_t`, where the `x_t` are independent
    errors of `SimplexNormal`: at any one time errors are those of `SimplexNormal` with the same spread. The first is such a one, too, or, where
    trajectories start from what was seen, what has grown from zero since the start.

    `log_prob` gives each row's log density given the rows before it, `(..., T)`: their sum is the trajectory's. (The batch is the rows', as with
    independent errors, so that rows can be masked; those after the last that counts, not those between.) `sample` draws whole trajectories.

    Parameters
    ----------
    loc : `(..., T, k)`, rows of which sum to one.
    spread : `(k,)` or `()`.
    memory : time in which a correlation falls by a factor e.
    elapsed : `(T,)`, times since the start, increasing.
    from_start : whether the error at the start is zero.
    """

    arg_constraints: ClassVar = {"loc": constraints.real_vector}
    support = constraints.real_vector
    pytree_data_fields = ("loc", "spread", "memory", "elapsed")
    pytree_aux_fields = ("from_start",)

    def __init__(
        self, loc: Array, spread: Any, memory: Any, elapsed: Array, from_start: bool, *, validate_args: bool | None = None
    ) -> None:
        self.loc, self.spread = loc, jnp.broadcast_to(spread, loc.shape[-1:])
        self.memory, self.elapsed, self.from_start = memory, elapsed, from_start
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Array:
        return self.loc

    @property
    def kept(self) -> Array:
        """`r_t` `(T,)`; of the first row 0, or where trajectories start from what was seen, what is kept since then."""
        gaps = jnp.diff(self.elapsed, prepend=0.0)
        kept = jnp.exp(-gaps / self.memory)
        return kept if self.from_start else kept.at[0].set(0.0)

    @property
    def fresh(self) -> Array:
        """`sqrt(1 - r_t^2)` `(T,)`; 1 for a first row at the very start, whose error is zero and which is no evidence."""
        square = -jnp.expm1(2.0 * jnp.log(jnp.maximum(self.kept, 1e-300)))
        return jnp.sqrt(jnp.where(square > 0.0, square, 1.0))

    def innovations(self, errors: Array) -> Array:
        """`e_t - r_t e_(t-1)` of errors `(..., T, k)`."""
        # A row at the very start is that start, whatever stands there: NumPyro puts other values where something is masked.
        errors = jnp.where(self.kept[:, None] < 1.0, errors, 0.0)
        before = jnp.concatenate([jnp.zeros_like(errors[..., :1, :]), errors[..., :-1, :]], axis=-2)
        return errors - self.kept[:, None] * before

    def log_prob(self, value: Array) -> Array:
        new = self.innovations(value - self.loc)
        return SimplexNormal(jnp.zeros_like(new), self.fresh[:, None] * self.spread).log_prob(new)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        shape = (*sample_shape, *self.loc.shape)
        drawn = SimplexNormal(jnp.zeros(shape, self.loc.dtype), self.spread).sample(key)
        new = jnp.where(self.kept < 1.0, self.fresh, 0.0)[:, None] * drawn

        def step(error: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
            kept, fresh = given
            error = kept * error + fresh
            return error, error

        _, errors = lax.scan(step, jnp.zeros_like(new[..., 0, :]), (self.kept, jnp.moveaxis(new, -2, 0)))
        return self.loc + jnp.moveaxis(errors, 0, -2)
