"""Gaussian processes by their Hilbert space approximation."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro.contrib.hsgp.laplacian import eigenfunctions
from numpyro.contrib.hsgp.spectral_densities import diag_spectral_density_matern, diag_spectral_density_squared_exponential

from bayes_mfg.errors import InputError
from bayes_mfg.games.base import Parameter

from .base import BoundPath, Conditional, Context, PathFunction, Prior, describe
from .inputs import Inputs
from .priors import amount, check_amount, check_choice, check_count, check_positive, normal, quantiles
from .splines import hold
from .varying import Varying

# kernel -> (name, boundary factor per length scale): Riutort-Mayol et al. (2023), section 4.
_RULES = {"squared_exponential": ("squared exponential", 3.2), "matern32": ("Matern 3/2", 4.5), "matern52": ("Matern 5/2", 4.1)}

MISSING = 1e-3
"""Share of the variance that the default number of basis functions leaves out, on average over the expansion's domain."""


MOST_BASIS = 500
"""Basis functions that the rule may ask for; every evaluation of the path pays for them."""


class HilbertBasis(eqx.Module):
    """`sum_f sum_j phi_j(x_f - centre) coefficients[f, j]` with eigenfunctions `phi` of the Laplacian.

    They live on `[-half_length, half_length]`, which is longer than the domain, and vanish at its ends; beyond, zero is held.
    """

    coefficients: Array
    centre: float = eqx.field(static=True)
    half_length: float = eqx.field(static=True)

    def __call__(self, features: Array) -> Array:
        inside = hold(features - self.centre, -self.half_length, self.half_length)
        basis = eigenfunctions(inside, self.half_length, self.coefficients.shape[1]).astype(features.dtype)
        return jnp.tensordot(basis, self.coefficients, 2, precision="highest")


def root_spectral_density(kernel: str, length_scale: Array, half_length: float, basis: int) -> Array:
    """Prior sd of every basis function's coefficient for unit variance, `(basis,)`.

    NumPyro's spectral densities, floored before the root: where they underflow, the root's derivative would be infinite.
    """
    if kernel == "squared_exponential":
        density = diag_spectral_density_squared_exponential(1.0, length_scale, half_length, basis, 1)
    else:
        density = diag_spectral_density_matern(1.5 if kernel == "matern32" else 2.5, 1.0, length_scale, half_length, basis, 1)
    # floor^(-3/2), which enters the second derivative, is still finite.
    floor = float(jnp.finfo(density.dtype).tiny) ** 0.65
    return jnp.sqrt(jnp.maximum(density, floor)).astype(length_scale.dtype)


def basis_needed(kernel: str, length_scale: float, half_length: float) -> int:
    """Basis functions that leave at most `MISSING` of the variance out; at least 4, and `MOST_BASIS + 1` where that does not suffice."""
    with jax.ensure_compile_time_eval():
        root = np.asarray(root_spectral_density(kernel, jnp.asarray(float(length_scale)), half_length, 10 * MOST_BASIS), float)
    share = np.cumsum(root**2) / (2 * half_length)
    # Functions beyond those summed are few for Matern's tails and none otherwise; the whole is one.
    enough = np.flatnonzero(share[: MOST_BASIS + 1] >= min(1.0, share[-1]) - MISSING)
    return max(int(enough[0]) + 1, 4) if enough.size else MOST_BASIS + 1


class GaussianProcess(Varying):
    """A stationary Gaussian process on the link's real line, expanded in `basis` eigenfunctions of the Laplacian (HSGP).

    `scale` is its prior sd. The expansion covers the whole domain, forecast horizon included; far beyond it the path returns to
    its level.
    Raw parameters: "level" and "basis", standard normal, and "length_scale", "scale" where they are uncertain; with `centered`,
    "basis" holds the coefficients themselves. Prefer centred only where data determine the path closely.
    Source: Riutort-Mayol et al., Practical Hilbert space approximate Bayesian Gaussian processes, Stat. Comput. 33:17 (2023); the
    rule for the boundary is its section 4, `c = max(1.2, a l / S)` with half range `S` and length scale `l`. The boundary is also
    kept two length scales away from the domain: at `l = S / 5` the rule alone lost 8 % of the sd at the ends. The basis has as many
    functions as leave `MISSING` of the variance out: the paper's own rule leaves out 1 % of a Matern-3/2 process, which is 10 % of
    its sd and more than what remains uncertain where data determine the path closely; bands then miss a rough truth.

    Parameters
    ----------
    length_scale : in the input's own units (time, or share); a number or a distribution on the positive numbers. Default: a third
        of the time from the first grid time to the last datum, or a third of a share's range.
    kernel : "matern52", "matern32" or "squared_exponential".
    basis : number of basis functions; default as said, at the 5 % quantile of an uncertain length scale.
    boundary : factor of the half range, above 1; default by the rule, at the 95 % quantile of an uncertain length scale.
    centered : sample the coefficients themselves.
    """

    length_scale: float | dist.Distribution | None = None
    kernel: str = eqx.field(default="matern52", static=True, kw_only=True)
    basis: int | None = eqx.field(default=None, static=True, kw_only=True)
    boundary: float | None = eqx.field(default=None, kw_only=True)
    centered: bool = eqx.field(default=False, static=True, kw_only=True)

    def bind(self, parameter: Parameter, context: Context) -> BoundPath:
        frame = self._frame(parameter, context)
        where, plan, shape = frame.where, frame.plan, parameter.shape
        kernel = check_choice(self.kernel, tuple(_RULES), "kernel", where)
        name, boundary_rule = _RULES[kernel]
        default = plan.reference[0] / 3.0
        length_scale = check_amount(default if self.length_scale is None else self.length_scale, "length_scale", where)
        short, long = quantiles(length_scale, (0.05, 0.95))
        half_range = 0.5 * (plan.end[0] - plan.start[0])
        if self.boundary is None:
            boundary = max(1.2, boundary_rule * long / half_range, 1.0 + 2.0 * long / half_range)
        else:
            boundary = check_positive(self.boundary, "boundary", where)
            if boundary <= 1.0:
                raise InputError(f"{where}: boundary is {boundary:g}; a factor above 1 is needed.")
        least = basis_needed(kernel, short, boundary * half_range)
        if self.basis is None and least > MOST_BASIS:
            raise InputError(
                f"{where}: length scales down to {short:g} on a range of {2 * half_range:g} need over {MOST_BASIS} basis functions; give a prior "
                "that allows no such short ones, or a number of functions as basis."
            )
        basis = least if self.basis is None else check_count(self.basis, "basis", where)
        if not isinstance(self.centered, bool):
            raise InputError(f"{where}: centered is {self.centered!r}; true or false is needed.")
        centre, half_length = float(plan.start[0] + half_range), float(boundary * half_range)
        draws = (plan.features, basis, *shape)

        def spread(raw: Mapping[str, Array]) -> Array:
            scale = jnp.asarray(frame.scale_at(raw))
            length = jnp.asarray(amount(length_scale, raw, "length_scale"), scale.dtype)
            sd = scale / float(np.sqrt(plan.features)) * root_spectral_density(kernel, length, half_length, basis)
            return sd.reshape((basis,) + (1,) * len(shape))

        def build(raw: Mapping[str, Array], inputs: Inputs) -> PathFunction:
            coefficients = raw["basis"]
            if not self.centered:
                coefficients = coefficients * spread(raw).astype(coefficients.dtype)
            return frame.linked(frame.level.at(raw), HilbertBasis(coefficients, centre, half_length), inputs)

        def given(raw: Mapping[str, Array]) -> dist.Distribution:
            return dist.Normal(0.0, jnp.broadcast_to(spread(raw), draws)).to_event(len(draws))

        priors: dict[str, Prior] = {}
        if isinstance(length_scale, dist.Distribution):
            priors["length_scale"] = length_scale
        priors |= frame.priors
        if not self.centered:
            priors["basis"] = normal(draws)
        else:
            uncertain = bool(priors.keys() & {"length_scale", "scale"})
            priors["basis"] = Conditional(given, draws) if uncertain else given({})
        text = f"{name} Gaussian process of length scale {describe(length_scale)} ({basis} basis functions)"
        return BoundPath(parameter, priors, build, plan, frame.sentence(text))
