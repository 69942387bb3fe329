"""A path for every trajectory: separate ones, or ones that scatter around a shared one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import biject_to

from bayes_mfg.errors import InputError
from bayes_mfg.games.base import Parameter

from .base import BoundPath, Conditional, Context, Path, PathFunction, Prior, describe
from .constant import Constant
from .priors import amount, check_amount, check_choice, normal, quantiles

POOLINGS = ("partial", "separate")

POOLING_SCALE = "pooling_scale"

SUFFIX = "_by_trajectory"
"""What the raw parameters of the trajectories are called after those of the path inside."""

_SPREAD_DRAWS = 4000


@dataclasses.dataclass(frozen=True, eq=False)
class PooledPath(BoundPath):
    """A pooled path bound to one parameter and one context.

    `function` is the path of the typical trajectory, whose deviation is zero; `by_trajectory` has the raw parameters of all trajectories, and
    `inner.function` makes the function of each.

    Attributes
    ----------
    inner : the path inside, bound.
    trajectories : number of trajectories `R`.
    partial : whether the trajectories share a typical path; separate ones share nothing.
    scale : the pooling scale or its prior.
    spreads : for a partial path: raw name of the path inside -> what a deviation of 1 is in its unconstrained coordinates; an array of their shape,
        or a number.
    centered : as the user gave it.
    """

    inner: BoundPath = dataclasses.field(kw_only=True)
    trajectories: int = dataclasses.field(kw_only=True)
    partial: bool = dataclasses.field(kw_only=True)
    scale: float | dist.Distribution = dataclasses.field(kw_only=True, default=1.0)
    spreads: dict[str, Any] = dataclasses.field(kw_only=True, default_factory=dict)
    centered: bool | None = dataclasses.field(kw_only=True, default=None)

    @property
    def local(self) -> tuple[str, ...]:
        return tuple(name + SUFFIX for name in (self.spreads if self.partial else self.inner.priors))

    @property
    def has_group(self) -> bool:
        return self.partial

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        inner = self.inner.hyperparameters
        if not self.partial:
            return tuple(name + SUFFIX for name in inner)
        return (*inner, POOLING_SCALE) if POOLING_SCALE in self.priors else inner

    def function(self, raw: Mapping[str, ArrayLike], observed: tuple[ArrayLike, ArrayLike] | None = None) -> PathFunction:
        """The path of the typical trajectory; see `BoundPath.function`.

        Raises
        ------
        InputError : where paths are separate, and as there.
        """
        if not self.partial:
            raise InputError(f"Pooled for parameter {self.parameter.name!r}: separate paths have no typical one.")
        return self.inner.function({name: raw[name] for name in self.inner.priors}, observed)

    def by_trajectory(self, raw: Mapping[str, Array]) -> dict[str, Array]:
        """Raw parameters of every trajectory's own function, `(R, ...)`."""
        if not self.partial:
            return {name: raw[name + SUFFIX] for name in self.inner.priors}
        tau = jnp.asarray(amount(self.scale, raw, POOLING_SCALE))
        found = {}
        for name in self.inner.priors:
            count = len(raw[next(iter(self.spreads)) + SUFFIX])
            if name not in self.spreads:
                found[name] = jnp.broadcast_to(raw[name], (count, *jnp.shape(raw[name])))
                continue
            step = tau.astype(raw[name].dtype) * self.spreads[name] * raw[name + SUFFIX]
            if name == "value":
                transform = biject_to(_prior(self.inner, name).support)
                found[name] = transform(transform.inv(raw[name]) + step)
            else:
                found[name] = raw[name] + step
        return found

    def renewed(self, raw: Mapping[str, Array], key: Array, count: int) -> dict[str, Array]:
        """The same unknowns with `count` other trajectories drawn from their prior given the shared unknowns."""
        keys = jax.random.split(key, len(self.local))
        drawn = {}
        for name, k in zip(self.local, keys, strict=True):
            prior = _prior(self.inner, name.removesuffix(SUFFIX)) if not self.partial else normal(jnp.shape(raw[name])[1:])
            drawn[name] = prior.sample(k, (count,)).astype(jnp.result_type(raw[name]))
        return {**raw, **drawn}


class Pooled(Path):
    """A path of its own for every trajectory, partially pooled by default.

    "partial": with standard normal raw parameters, those of trajectory r are `raw + tau z_r`, where `raw` is shared and `z_r` is standard normal. A
    trajectory's path thus scatters around a shared one, that of the typical trajectory, as that one scatters around its level under its own prior,
    `tau` times as far: the level by `tau level_scale`, the variation by `tau scale`, with the same kernel or knots. `tau`, the pooling scale, is 0
    where all trajectories have one path and large where they have nothing in common. Scales and length scales are shared. Under the prior, given
    `tau`, the path of one trajectory has, on the link's real line, the mean and covariance function of the path inside, the latter times
    `1 + tau^2`; two trajectories have the correlation `1 / (1 + tau^2)`. A network is pooled in its weights in the same way, and this holds for its
    level and output weights only. A constant with a prior of its own is pooled in the unconstrained coordinate of the prior's support (the
    logarithm for positive numbers, the logit of the position in an interval), in units of half the distance from the prior's 16 % to its 84 %
    quantile there: for a log-normal prior the rule above, for others the shared value has the prior, and that of a trajectory the prior spread
    about `sqrt(1 + tau^2)` times as wide on this scale.

    "separate": every trajectory has its own unknowns, scales and length scales included, independent with the same prior. The path itself, not
    pooled, is one that all trajectories share.

    Raw parameters, partial: those of the path inside, "pooling_scale" where it is uncertain, and `z` as "<raw name>_by_trajectory", `(R, ...)`;
    separate: "<raw name>_by_trajectory" alone. What is reported: the parameter along every trajectory, `<name>_group` of the typical trajectory, and
    `<name>_pooling_scale`.

    Unknowns are not centred in the model, so that modes and variational fits have a bounded density (centred, it grows without bound where `tau`
    goes to 0). NUTS alone moves in coordinates that may be centred; see `bayes_mfg.inference.centring`. The pooling scale of a point estimate is that
    of the mode in these coordinates, and mostly too large: believe that of a posterior.
    Source: Gelman and Hill, Data Analysis Using Regression and Multilevel/Hierarchical Models (2007), chapter 12; Papaspiliopoulos, Roberts and
    Skold, A general framework for the parametrization of hierarchical models, Statistical Science 22 (2007).

    Parameters
    ----------
    path : a path of any family, not centred, or a NumPyro distribution (a constant with that prior).
    pooling : "partial" or "separate".
    scale : the pooling scale `tau`; a number is fixed, a NumPyro distribution on the positive numbers makes it an unknown. Default HalfNormal(0.5).
        With a handful of trajectories its prior counts.
    centered : whether NUTS moves in centred coordinates; by default as far as the data determine every coordinate of every trajectory.

    Raises
    ------
    InputError : at `bind`, for a partial path and a single trajectory, which does not say how far trajectories differ; for a path inside that is
        known, pooled or centred itself; and for fields that do not fit.
    """

    path: Path | dist.Distribution
    pooling: str = eqx.field(default="partial", static=True)
    scale: float | dist.Distribution | None = eqx.field(default=None, kw_only=True)
    centered: bool | None = eqx.field(default=None, static=True, kw_only=True)

    def bind(self, parameter: Parameter, context: Context) -> PooledPath:
        where = f"Pooled for parameter {parameter.name!r}"
        path = Constant(prior=self.path) if isinstance(self.path, dist.Distribution) else self.path
        if not isinstance(path, Path) or isinstance(path, Pooled):
            raise InputError(f"{where}: path is {path!r}; a path that is not pooled, or a NumPyro distribution, is needed.")
        partial = check_choice(self.pooling, POOLINGS, "pooling", where) == "partial"
        inner = path.bind(parameter, context)
        if not inner.priors:
            raise InputError(f"{where}: path is {path!r}, which is known; there is nothing to pool.")
        if getattr(path, "centered", False):
            raise InputError(f"{where}: the path inside is centred; give centered to Pooled alone.")
        if partial:
            return self._partial(path, inner, context.trajectories, where)
        for name in ("scale", "centered"):
            if getattr(self, name) is not None:
                raise InputError(f"{where}: {name} has no meaning for separate paths, which share nothing.")
        count = context.trajectories
        priors: dict[str, Prior] = {name + SUFFIX: _repeated(_prior(inner, name), count) for name in inner.priors}
        text = f"{inner.description.removesuffix('.')}; a separate one for each trajectory."
        return PooledPath(
            parameter, priors, inner.build, inner.plan, text, inner.is_constant, inner=inner, trajectories=count, partial=False
        )

    def _partial(self, path: Path, inner: BoundPath, count: int, where: str) -> PooledPath:
        scale = check_amount(dist.HalfNormal(0.5) if self.scale is None else self.scale, "scale", where)
        if self.centered is not None and not isinstance(self.centered, bool):
            raise InputError(f"{where}: centered is {self.centered!r}; true, false or nothing is needed.")
        if count < 2:
            raise InputError(
                f"{where}: the data have one trajectory, which does not say how far trajectories differ; give the path itself."
            )
        if self.centered is not None and not isinstance(scale, dist.Distribution):
            raise InputError(f"{where}: centered is {self.centered}, but the scale is known; there is nothing to centre for.")
        priors = dict(inner.priors)
        if isinstance(scale, dist.Distribution):
            priors[POOLING_SCALE] = scale
        spreads: dict[str, Any] = {}
        for name in inner.priors:
            if name not in inner.hyperparameters:
                prior = _prior(inner, name)
                with jax.ensure_compile_time_eval():
                    shape = jnp.shape(biject_to(prior.support).inv(prior.sample(jax.random.key(0))))
                spreads[name] = _spread(path, prior) if name == "value" else 1.0
                priors[name + SUFFIX] = normal((count, *shape))
        text = f"{inner.description.removesuffix('.')}; every trajectory deviates from a shared path by {describe(scale)} times these sds."
        return PooledPath(
            inner.parameter, priors, inner.build, inner.plan, text, inner.is_constant,
            inner=inner, trajectories=count, partial=True, scale=scale, spreads=spreads, centered=self.centered,
        )  # fmt: skip


def _prior(inner: BoundPath, name: str) -> dist.Distribution:
    prior = inner.priors[name]
    assert not isinstance(prior, Conditional)  # only centred paths have such
    return prior


def _repeated(prior: dist.Distribution, count: int) -> dist.Distribution:
    """`count` independent draws as one event."""
    repeated = prior.expand((count, *prior.batch_shape))
    return repeated.to_event(len(repeated.batch_shape))


def _spread(path: Path, prior: dist.Distribution) -> ArrayLike:
    """Half the distance from the 16 % to the 84 % quantile of a prior in its unconstrained coordinates."""
    levels = (0.15865525393145707, 0.8413447460685429)  # one sd of a normal
    own = getattr(path, "prior", None)
    with jax.ensure_compile_time_eval():
        if isinstance(own, dist.Distribution) and own.shape() == ():
            ends = np.asarray(biject_to(own.support).inv(jnp.asarray(quantiles(own, levels))))
            return float(abs(ends[1] - ends[0]) / 2)
        draws = np.asarray(biject_to(prior.support).inv(prior.sample(jax.random.key(0), (_SPREAD_DRAWS,))))
        return np.abs(np.subtract(*np.quantile(draws, levels[::-1], axis=0))) / 2
