"""Piecewise constant paths, random walks and splines: B-splines with a Gaussian prior on the coefficients."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from bayes_mfg.errors import InputError
from bayes_mfg.games.base import Parameter

from .base import BoundPath, Conditional, Context, PathFunction, Prior
from .inputs import Inputs
from .priors import check_choice, check_count, normal
from .varying import Frame, Varying


def hold(x: Array, low: float, high: float) -> Array:
    """`x` clipped to `[low, high]`, with the inner derivative at both ends (`jnp.clip` halves it there)."""
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


def bspline_basis(x: ArrayLike, breakpoints: Sequence[float], degree: int) -> Array:
    """All B-splines of one degree at a scalar, on increasing breakpoints with repeated end knots.

    Cox-de Boor recursion over all functions at once: comparisons and products only, no search. Beyond the end breakpoints the
    value at the end is held. The functions are non-negative and sum to one.
    Source: de Boor, A Practical Guide to Splines (1978), chapter X, recurrence (4)-(5).

    Parameters
    ----------
    x : scalar.
    breakpoints : `(J + 1,)`, strictly increasing numbers.
    degree : polynomial degree `k` of the pieces.

    Returns
    -------
    Array : `(J + k,)`.
    """
    x = jnp.asarray(x)
    inner = jnp.asarray(breakpoints[1:-1], x.dtype)
    knots = np.concatenate([[breakpoints[0]] * degree, breakpoints, [breakpoints[-1]] * degree])
    x = hold(x, float(breakpoints[0]), float(breakpoints[-1]))
    # A time computed as a sum may miss a breakpoint by its last digits.
    slack = 8 * float(jnp.finfo(x.dtype).eps) * max(abs(float(breakpoints[0])), abs(float(breakpoints[-1])))
    above, end = x >= inner - slack, jnp.ones((1,), bool)
    basis = (jnp.concatenate([end, above]) & jnp.concatenate([~above, end])).astype(x.dtype)
    basis = jnp.pad(basis, (degree, degree))
    for p in range(1, degree + 1):
        width = knots[p:] - knots[:-p]  # of the support of every function of degree p - 1
        share = np.divide(1.0, width, out=np.zeros_like(width), where=width > 0)
        left = (x - jnp.asarray(knots[: -p - 1], x.dtype)) * jnp.asarray(share[:-1], x.dtype)
        right = (jnp.asarray(knots[p + 1 :], x.dtype) - x) * jnp.asarray(share[1:], x.dtype)
        basis = left * basis[:-1] + right * basis[1:]
    return basis


class BSpline(eqx.Module):
    """`sum_f sum_i B_i(x_f) coefficients[f, i]`."""

    coefficients: Array
    breakpoints: tuple[float, ...] = eqx.field(static=True)
    degree: int = eqx.field(static=True)

    def __call__(self, features: Array) -> Array:
        basis = jax.vmap(lambda x: bspline_basis(x, self.breakpoints, self.degree))(features)
        return jnp.tensordot(basis, self.coefficients, 2, precision="highest")


class _SplinePath(Varying):
    """Shared by all families here; not for users."""

    knots: int | Sequence[float] = 8
    centered: bool = eqx.field(default=False, static=True, kw_only=True)

    @abc.abstractmethod
    def _degree(self, where: str) -> int:
        """Degree of the pieces."""

    @abc.abstractmethod
    def _sites(self, breakpoints: np.ndarray, degree: int) -> np.ndarray | None:
        """Place on the input axis of every coefficient, for a random walk over them; None for independent coefficients."""

    @abc.abstractmethod
    def _name(self, breakpoints: np.ndarray, where: str) -> str:
        """The family in words."""

    def bind(self, parameter: Parameter, context: Context) -> BoundPath:
        frame = self._frame(parameter, context)
        degree = self._degree(frame.where)
        breakpoints = _breakpoints(self.knots, frame)
        count, shape, plan = len(breakpoints) - 1 + degree, parameter.shape, frame.plan
        factor = self._factor(breakpoints, degree, frame) / np.sqrt(plan.features)
        points = tuple(float(b) for b in breakpoints)
        text = frame.sentence(self._name(breakpoints, frame.where))
        if not isinstance(self.centered, bool):
            raise InputError(f"{frame.where}: centered is {self.centered!r}; true or false is needed.")

        if not self.centered:
            draws = (plan.features, factor.shape[1], *shape)

            def build(raw: Mapping[str, Array], inputs: Inputs) -> PathFunction:
                spread = frame.scale_at(raw) * jnp.asarray(factor, raw["increments"].dtype)
                coefficients = jnp.einsum("ij,fj...->fi...", spread, raw["increments"], precision="highest")
                return frame.linked(frame.level.at(raw), BSpline(coefficients, points, degree), inputs)

            priors: dict[str, Prior] = {**frame.priors, "increments": normal(draws)}
            return BoundPath(parameter, priors, build, plan, text)

        if plan.features > 1:
            raise InputError(f"{frame.where}: centered=True needs one input; got {', '.join(plan.names)}.")

        # The basis sums to one, so the level is part of the coefficients: covariance level_scale^2 1 1' + scale^2 factor factor'.
        def given(raw: Mapping[str, Array]) -> dist.Distribution:
            scale = jnp.asarray(frame.scale_at(raw))
            shared = jnp.full((count, 1), frame.level.scale, scale.dtype)
            root = jnp.concatenate([shared, scale * jnp.asarray(factor, scale.dtype)], axis=1)
            # For a random walk the first row of `factor` is zero, and `root` is lower triangular as it stands.
            tril = root if root.shape[1] == count else jnp.linalg.cholesky(root @ root.T)
            loc = jnp.broadcast_to(jnp.asarray(frame.level.location, scale.dtype)[..., None], (*shape, count))
            return dist.MultivariateNormal(loc, scale_tril=tril).to_event(len(shape))

        def build_centered(raw: Mapping[str, Array], inputs: Inputs) -> PathFunction:
            coefficients = jnp.moveaxis(raw["coefficients"], -1, 0)[None]
            level = jnp.zeros(shape, coefficients.dtype)
            return frame.linked(level, BSpline(coefficients, points, degree), inputs)

        uncertain = isinstance(frame.scale, dist.Distribution)
        prior: Prior = Conditional(given, (*shape, count)) if uncertain else given({})
        return BoundPath(parameter, {**frame.hyperpriors, "coefficients": prior}, build_centered, plan, text)

    def _factor(self, breakpoints: np.ndarray, degree: int, frame: Frame) -> np.ndarray:
        """Matrix `A` such that the coefficients are `scale A z` with standard normal `z`."""
        sites = self._sites(breakpoints, degree)
        if sites is None:
            # The mean over the domain of the prior variance sum_i B_i(x)^2 is set to one.
            grid = np.linspace(breakpoints[0], breakpoints[-1], 1001)
            with jax.ensure_compile_time_eval():
                basis = np.asarray(jax.vmap(lambda x: bspline_basis(x, tuple(breakpoints), degree))(jnp.asarray(grid)))
            return np.eye(len(breakpoints) - 1 + degree) / np.sqrt(np.mean(np.sum(basis**2, axis=1)))
        # For pieces, the length that counts runs to the last change inside the reference range: one change has the full sd.
        reference = frame.plan.reference[0]
        if degree == 0:
            inside = sites[sites < frame.plan.start[0] + reference * (1 - 1e-9)]
            reference = inside[-1] - sites[0] if len(inside) > 1 else reference
        steps = np.sqrt(np.diff(sites) / reference)
        return np.tril(np.ones((len(sites), len(sites))), -1)[:, :-1] * steps


def _breakpoints(knots: Any, frame: Frame) -> np.ndarray:
    """Breakpoints over the domain: given ones with the ends added, or equal pieces of the reference range and on."""
    start, end, reference = frame.plan.start[0], frame.plan.end[0], frame.plan.reference[0]
    if np.ndim(knots) == 0:
        step = reference / check_count(knots, "knots", frame.where)
        pieces = max(int(np.ceil((end - start) / step - 1e-9)), 1)
        return start + step * np.arange(pieces + 1)
    given = np.asarray(knots)
    if (
        given.ndim != 1
        or not np.issubdtype(given.dtype, np.number)
        or not np.all(np.isfinite(given))
        or np.any(np.diff(given) <= 0)
    ):
        raise InputError(f"{frame.where}: knots is {knots!r}; a whole number or finite increasing numbers are needed.")
    for knot in given:
        if not start <= knot <= end:
            raise InputError(f"{frame.where}: knot {knot:g} lies outside [{start:g}, {end:g}].")
    return np.unique(np.concatenate([[start], given.astype(float), [end]]))


class PiecewiseConstant(_SplinePath):
    """A value per piece of time; a Gaussian random walk from piece to piece on the link's real line.

    The first piece is the level. `scale` is the prior sd of the change from the first to the last piece of the data's time range:
    one change has sd `scale`, and several share it, in proportion to the root of the time between them. Jumps lie at the change
    times, with the new value from the change time on.
    Raw parameters: non-centred "level" and "increments", standard normal; centred "coefficients", the values of the pieces on the
    link's real line. Prefer centred where the data determine every piece well.

    Parameters
    ----------
    knots : number of equal pieces from the first grid time to the last datum (repeated up to the forecast horizon), or the change
        times.
    centered : sample the pieces themselves.
    """

    def _degree(self, where: str) -> int:
        if self.input == "population" or "population" in self.input:
            raise InputError(
                f"{where}: input 'population' would jump inside the equilibrium; use RandomWalk, Spline or GaussianProcess."
            )
        return 0

    def _sites(self, breakpoints: np.ndarray, degree: int) -> np.ndarray | None:
        return breakpoints[:-1]

    def _name(self, breakpoints: np.ndarray, where: str) -> str:
        return f"{len(breakpoints) - 1} constant pieces"


class RandomWalk(_SplinePath):
    """A Gaussian random walk at the knots on the link's real line, linear between them.

    It starts at the level. `scale` is the prior sd of the change from the first grid time to the last datum (for a share: from 0
    to 1), whatever the number of knots: the variance grows as `scale^2 (t - t_0) / (t_data - t_0)`, and goes on growing up to the
    horizon.
    Raw parameters: non-centred "level" and "increments", standard normal; centred "coefficients", the values at the knots on the
    link's real line. Prefer centred where the data determine the path well at every knot.

    Parameters
    ----------
    knots : number of equal pieces from the first grid time to the last datum (repeated up to the forecast horizon), or the knots
        themselves; the ends are added.
    centered : sample the values at the knots themselves.
    """

    def _degree(self, where: str) -> int:
        return 1

    def _sites(self, breakpoints: np.ndarray, degree: int) -> np.ndarray | None:
        return breakpoints

    def _name(self, breakpoints: np.ndarray, where: str) -> str:
        return f"random walk with {len(breakpoints)} knots"


class Spline(_SplinePath):
    """A spline with a Gaussian prior on its B-spline coefficients (a P-spline), `degree - 1` times continuously differentiable.

    With `prior="random_walk"`, `scale` means what it means for `RandomWalk`: steps between coefficients have variances in
    proportion to the distance of their Greville sites (exact for degree 1). With `prior="independent"`, `scale` is the root of
    the mean prior variance over the domain. A longer forecast changes the prior in the last `degree` pieces before the last
    datum.
    Raw parameters: non-centred "level" and "increments", standard normal; centred "coefficients" on the link's real line.
    Source: Lang and Brezger, Bayesian P-Splines, J. Comput. Graph. Stat. 13 (2004), section 2.

    Parameters
    ----------
    knots : number of equal pieces from the first grid time to the last datum (repeated up to the forecast horizon), or the
        breakpoints themselves; the ends are added.
    degree : degree of the pieces, 1 to 5.
    prior : "random_walk" or "independent".
    centered : sample the coefficients themselves.
    """

    degree: int = eqx.field(default=3, static=True)
    prior: str = eqx.field(default="random_walk", static=True, kw_only=True)

    def _degree(self, where: str) -> int:
        degree = check_count(self.degree, "degree", where)
        if degree > 5:
            raise InputError(f"{where}: degree is {degree}; 1 to 5 is needed.")
        return degree

    def _sites(self, breakpoints: np.ndarray, degree: int) -> np.ndarray | None:
        if self.prior == "independent":
            return None
        knots = np.concatenate([[breakpoints[0]] * degree, breakpoints, [breakpoints[-1]] * degree])
        return np.asarray([knots[i + 1 : i + degree + 1].mean() for i in range(len(breakpoints) - 1 + degree)])

    def _name(self, breakpoints: np.ndarray, where: str) -> str:
        check_choice(self.prior, ("random_walk", "independent"), "prior", where)
        return f"spline of degree {self.degree} with {len(breakpoints) - 1} pieces"
