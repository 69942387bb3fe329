"""Variational inference in the coordinates whitened at the mode: point mass, Laplace, NumPyro's normal guides, and a flow."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from arviz_stats.base import array_stats
from jax import Array, lax
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal

from bayes_mfg.errors import InputError
from bayes_mfg.models import Data, ForwardModel

from .checkpoint import Checkpoint, pack, unpack
from .coordinates import compiled, coordinates, potential
from .errors import FitError
from .flow import MOST_UNKNOWNS, Flow
from .point import Mode, exact_curvature, flat_directions
from .progress import bar
from .stopping import settled

NORMALS: dict[str, Any] = {"mean-field": AutoNormal, "low-rank": AutoLowRankMultivariateNormal, "full": AutoMultivariateNormal}
GUIDES = ("point-mass", "laplace", *NORMALS, "flow")
"""From the poorest to the richest."""

CHUNK = 100
"""Optimiser steps per compiled call: between two of them progress is shown, a checkpoint written, an interrupt heard."""


def reliable(draws: int) -> float:
    """Pareto k up to which importance ratios of so many draws can be trusted.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, Pareto smoothed importance sampling, JMLR 25 (2024).
    """
    return min(0.7, 1.0 - 1.0 / math.log10(draws)) if draws > 10 else 0.0


TOLERANCE = {"flow": 0.02, "other": 0.1}
"""Nats to which the ELBO has settled when updates end. The tails of a flow, which its Pareto k looks at, hardly show in the ELBO and come last."""

FEWEST = 25
"""Draws from which a Pareto k can be had: its tail is a fifth of them, at least five."""


@dataclasses.dataclass(frozen=True)
class Approximation:
    """Draws from a fitted guide.

    Attributes
    ----------
    flat : unconstrained draws `(draw, size)`, all of finite density.
    stats : lp, per draw, `(1, draw)`.
    settings : ELBO, steps, skipped updates, rejected draws, Pareto k, for the record.
    warnings : sentences for the user.
    elbo : its estimate at every update, `(update,)`, NaN where one was skipped; None for guides without updates.
    """

    flat: np.ndarray
    stats: dict[str, np.ndarray]
    settings: dict[str, Any]
    warnings: list[str]
    elbo: np.ndarray | None = None


def check(model: ForwardModel, guide: Any, importance: Any) -> None:
    """Refuse what is no guide, what is no choice, and a flow of many unknowns.

    Raises
    ------
    InputError : naming what was given.
    """
    if guide not in GUIDES:
        raise InputError(f"Unknown guide {guide!r}; choose one of {', '.join(GUIDES)}.")
    if not isinstance(importance, bool):
        raise InputError(f"svi: importance is {importance!r}; True or False is needed.")
    if guide == "point-mass" and importance:
        raise InputError("svi: importance=True needs draws; a point mass has one.")
    size = coordinates(model).size
    if guide == "flow" and size > MOST_UNKNOWNS:
        raise InputError(
            f'svi: the model has {size} unknowns, and a flow is for at most {MOST_UNKNOWNS}; choose another guide, or method "nuts".'
        )


def approximate(
    model: ForwardModel,
    mode: Mode,
    *,
    guide: str = "full",
    importance: bool = False,
    num_steps: int = 5000,
    tolerance: float | None = None,
    learning_rate: float = 0.01,
    num_particles: int = 8,
    num_samples: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
    checkpoint: Checkpoint | None = None,
) -> Approximation:
    """Fit a guide to the posterior by stochastic gradients of the ELBO, starting as the Laplace approximation.

    The guide lives on `x` with `latents = mode + factor @ x`: "mean-field" is a diagonal normal in these rotated coordinates, "low-rank" and "full"
    add covariance, "flow" is `flow.Flow`. Updates whose ELBO is not finite (an equilibrium was not found) are skipped and counted. Two guides take no
    updates: "laplace" is the normal at the mode with the inverse of the exact curvature there, "point-mass" is the mode, one draw.

    Updates end when the ELBO has settled to `tolerance` nats (`stopping.settled`; by default `TOLERANCE`), after at most `num_steps`. The learning
    rate is the same all the time, and the guide is that of the parameters averaged over the last half of the updates, over which the ELBO was
    judged: the average has not the noise of the last iterate (Polyak and Juditsky, SIAM J. Control Optim. 30, 1992). With tolerance 0 all
    `num_steps` updates are made, at a learning rate that falls to a tenth, and the last counts.

    Every guide with draws is judged by the Pareto k of its importance ratios, smoothed (PSIS): up to a limit (`reliable`) they can be trusted, and
    with `importance` the draws are resampled by them, which corrects what the guide gets wrong.

    With a checkpoint, every `CHUNK` updates are kept as they are made, and those that it holds are not made again. An interrupt (Ctrl-C) ends the
    updates, and the guide is taken as it is by then; before the first `CHUNK` it is passed on.

    Raises
    ------
    InputError : for an unknown guide, and a flow of many unknowns.
    FitError : when no draw of the fitted guide has an equilibrium.
    """
    check(model, guide, importance)
    space = coordinates(model)
    if guide == "point-mass":
        settings = {"guide": guide, "num_samples": 1}
        return Approximation(mode.location[None], {"lp": np.array([[-mode.potential]])}, settings, [NO_WIDTHS])
    if guide == "laplace":
        covariance, root, flat = exact_curvature(model, mode.location)
        mode = dataclasses.replace(mode, covariance=covariance, factor=root, flat=flat)
        normal = dist.Normal(jnp.zeros(space.size), 1.0).to_event(1)
        x = normal.sample(jax.random.key(seed), (num_samples,))
        return _judged(model, mode, x, normal.log_prob(x), {"guide": guide}, flat_directions(mode), importance, seed)
    tolerance = TOLERANCE.get(guide, TOLERANCE["other"]) if tolerance is None else tolerance
    averaged = tolerance > 0
    optimiser = _compiled_optimiser(model, guide, num_particles, learning_rate, None if averaged else num_steps)
    args = (model.data, jnp.asarray(mode.location), jnp.asarray(mode.factor))
    updates = _Updates(optimiser, optimiser.start(jax.random.key(seed), args))
    with bar(num_steps, "svi", progress) as shown:
        for part in [] if checkpoint is None else checkpoint.read("svi"):
            updates.take(part)
            shown.update(len(part["losses"]))
        try:
            while updates.count < num_steps and not settled(updates.losses, tolerance):
                part = updates.go_on(min(CHUNK, num_steps - updates.count), args)
                if checkpoint is not None:
                    checkpoint.write("svi", len(updates.parts), part)
                updates.take(part)
                shown.update(len(part["losses"]))
        except KeyboardInterrupt:
            if not updates.count:
                raise
    losses, skipped = updates.losses, updates.skipped
    done = settled(losses, tolerance)
    interrupted = len(losses) < num_steps and not done
    x, log_guide = _draws(optimiser.family, updates.params(), jax.random.key(seed + 1), num_samples)
    warnings = flat_directions(mode)
    if interrupted:
        warnings.append(f"Interrupted after {len(losses)} of {num_steps} variational updates; the guide may not have settled.")
    elif averaged and not done:
        warnings.append(
            f"The ELBO had not settled to {tolerance:g} nats within {num_steps} variational updates; the guide may not be the best of "
            "its kind: raise num_steps."
        )
    if skipped:
        warnings.append(f"{skipped} of {len(losses)} variational updates were skipped because an equilibrium was not found.")
    # The guide lives in whitened coordinates: their volume makes it a bound on the log evidence.
    elbo = np.where(np.isfinite(losses), -losses, np.nan) + np.linalg.slogdet(mode.factor)[1]
    settings = {
        "guide": guide,
        "num_steps": len(losses),
        **({"interrupted": True} if interrupted else {}),
        **({"settled": done} if averaged else {}),
        "skipped_updates": skipped,
    }
    found = _judged(model, mode, x, log_guide, settings, warnings, importance, seed)
    return dataclasses.replace(found, elbo=elbo)


NO_WIDTHS = (
    "A point mass at the posterior mode: one value of every unknown, without widths, and no word on how far it can be trusted."
)


def _compiled_optimiser(
    model: ForwardModel, guide: str, num_particles: int, learning_rate: float, falling: int | None
) -> "_Optimiser":
    """The optimiser of a guide of this model's structure, made once; `falling` is the number of steps over which the rate falls, if it does."""
    space = coordinates(model)

    def whitened(data: Data, location: Array, factor: Array) -> None:
        x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), (space.size,)))
        with handlers.block():  # the model's own sites are none of the guide's
            density = -space.potential(location + factor @ x, data)
        numpyro.factor("density", density)

    def make() -> _Optimiser:
        rate = learning_rate if falling is None else optax.exponential_decay(learning_rate, falling, 0.1)
        family = _family(guide, whitened, space.size)
        runner = SVI(whitened, family, optax.adam(rate), Trace_ELBO(num_particles=num_particles))
        return _Optimiser(family, runner, falling is None)

    found: _Optimiser = compiled(model, f"svi/{guide}/{num_particles}/{learning_rate}/{falling}", make)
    return found


class _Optimiser:
    """NumPyro's SVI for one guide of one model structure; the data and the coordinates are arguments, so that it is compiled once."""

    def __init__(self, family: Any, runner: SVI, averaged: bool) -> None:
        self.family = family
        self.runner = runner
        self.averaged = averaged
        self.run = jax.jit(self._run)

    def start(self, key: Array, args: tuple) -> Any:
        """The state before the first update."""
        return self.runner.init(key, *args)

    def free(self, state: Any) -> Any:
        """The parameters as the optimiser sees them, without constraints."""
        return self.runner.optim.get_params(state.optim_state)

    def _run(self, state: Any, length: Array, args: tuple) -> tuple[Any, Array, Array, Any]:
        def step(i: Array, carry: tuple) -> tuple:
            state, losses, skipped, mean = carry
            state, loss = self.runner.stable_update(state, *args)
            if self.averaged:
                mean = jax.tree.map(lambda mean, x: mean + (x - mean) / (i + 1), mean, self.free(state))
            return state, losses.at[i].set(loss), skipped + ~jnp.isfinite(loss), mean

        mean = jax.tree.map(jnp.zeros_like, self.free(state)) if self.averaged else ()
        return lax.fori_loop(0, length, step, (state, jnp.full((CHUNK,), jnp.nan), jnp.zeros((), int), mean))


class _Updates:
    """Variational updates: their state, and what is kept of those made so far, in parts as a checkpoint keeps them."""

    def __init__(self, optimiser: _Optimiser, state: Any) -> None:
        self.optimiser = optimiser
        self.state = state
        self.parts: list[dict[str, np.ndarray]] = []

    @property
    def losses(self) -> np.ndarray:
        """Negative ELBO of every update."""
        return np.concatenate([part["losses"] for part in self.parts]) if self.parts else np.zeros(0)

    @property
    def count(self) -> int:
        """Updates made."""
        return len(self.losses)

    @property
    def skipped(self) -> int:
        """Updates that were not made because their ELBO was not finite."""
        return sum(int(part["skipped"]) for part in self.parts)

    def go_on(self, length: int, args: tuple) -> dict[str, np.ndarray]:
        """What `length <= CHUNK` updates from the state give; it is not taken yet."""
        state, losses, skipped, mean = self.optimiser.run(self.state, length, args)
        # An interrupt is heard while these are waited for.
        made = {"losses": np.asarray(losses)[:length], "skipped": np.asarray(skipped)}
        return made | pack(state) | {f"mean/{name}": x for name, x in pack(mean).items()}

    def take(self, part: dict[str, np.ndarray]) -> None:
        """Go on from a part."""
        self.state = unpack(self.state, part)
        self.parts.append({name: x for name, x in part.items() if not name.startswith("leaf/")})

    def params(self) -> Any:
        """The guide's parameters: averaged over the last half of the parts, or the last."""
        runner = self.optimiser.runner
        if not self.optimiser.averaged:
            return runner.get_params(self.state)
        parts = self.parts[len(self.parts) // 2 :]
        weights = [len(part["losses"]) for part in parts]
        names = [name for name in parts[0] if name.startswith("mean/")]
        mean = {name.removeprefix("mean/"): np.average([part[name] for part in parts], 0, weights) for name in names}
        return runner.constrain_fn(unpack(self.optimiser.free(self.state), mean))


def _family(guide: str, whitened: Any, size: int) -> Any:
    """The guide of the site `x (size,)`, a standard normal to begin with."""
    if guide == "flow":
        return Flow(size)
    start = numpyro.infer.init_to_value(values={"x": jnp.zeros(size)})
    return NORMALS[guide](whitened, init_loc_fn=start, init_scale=1.0)


def _draws(family: Any, params: Any, key: Array, count: int) -> tuple[Array, Array]:
    """Draws `(count, size)` of a guide with their log densities `(count,)`."""
    if isinstance(family, Flow):
        return family.draws(key, params, count)
    x = family.sample_posterior(key, params, sample_shape=(count,))["x"]
    fitted = _diagonal(params) if isinstance(family, AutoNormal) else family.get_posterior(params)
    return x, fitted.log_prob(x)


def _judged(
    model: ForwardModel,
    mode: Mode,
    x: Array,
    log_guide: Array,
    settings: dict[str, Any],
    warnings: list[str],
    importance: bool,
    seed: int,
) -> Approximation:
    """Draws `x (draw, size)` of a guide in whitened coordinates, without those that have no equilibrium, judged by their importance ratios.

    Raises
    ------
    FitError : when no draw has an equilibrium.
    """
    flat = mode.location + np.asarray(x) @ mode.factor.T
    density = -potentials(model, flat)
    good = np.isfinite(density)
    if not good.any():
        raise FitError("No draw of the fitted guide has an equilibrium that the solver finds.")
    if not good.all():
        warnings.append(
            f"{int((~good).sum())} of {len(flat)} draws of the guide have no equilibrium that the solver finds; they were left out."
        )
    ratios = density[good] - np.asarray(log_guide)[good]
    weights, pareto_k = psis(ratios)
    flat, density = flat[good], density[good]
    limit = reliable(len(ratios))
    trusted = pareto_k <= limit
    settings |= {
        "rejected_draws": int((~good).sum()),
        # Of the guide that gave the draws; the trace is of the guides on the way. Draws without an equilibrium would make it minus infinity.
        **({"elbo": float(ratios.mean() + np.linalg.slogdet(mode.factor)[1])} if good.all() else {}),
        **({} if np.isnan(pareto_k) else {"pareto_k": pareto_k}),
        "importance_ess": float(1.0 / np.sum(weights**2)),
        "importance": importance and trusted,
        "pareto_k_limit": limit,
    }
    if np.isnan(pareto_k) and len(ratios) >= FEWEST:
        warnings.append(
            "The guide is far from the posterior: of its importance ratios so few count that they have no Pareto k"
            f"{', so the draws were not reweighted' if importance else ''}; do not trust its widths, use NUTS."
        )
    elif np.isnan(pareto_k):
        warnings.append(
            f"How far the guide is from the posterior cannot be told from {len(ratios)} draws"
            f"{', and they were not reweighted' if importance else ''}; {FEWEST} are needed."
        )
    elif not trusted:
        warnings.append(
            f"The guide is far from the posterior: Pareto k of its importance ratios is {pareto_k:.2f}, above {limit:.2f}"
            f"{', so the draws were not reweighted' if importance else ''}; do not trust its widths, use NUTS."
        )
    elif importance:
        # Systematic resampling: the least noise for given weights.
        rng = np.random.default_rng(seed)
        places = (rng.uniform() + np.arange(len(flat))) / len(flat)
        chosen = np.minimum(np.searchsorted(np.cumsum(weights), places), len(flat) - 1)
        chosen = rng.permutation(chosen)
        flat, density = flat[chosen], density[chosen]
    settings["num_samples"] = len(flat)
    return Approximation(flat, {"lp": density[None]}, settings, warnings)


def _diagonal(params: Mapping[str, Array]) -> dist.Distribution:
    """The normal that an `AutoNormal` guide of the site `x` stands for."""
    return dist.Normal(params["x_auto_loc"], params["x_auto_scale"]).to_event(1)


def potentials(model: ForwardModel, flat: np.ndarray) -> np.ndarray:
    """Negative log density of many draws `(draw, size)`, one at a time; NaN where a solve fails."""
    # Not one compiled loop: XLA gives back what the solves of large games allocate at the end of a call only.
    one = potential(model)
    return np.array([float(one(z, model.data)) for z in jnp.asarray(flat)])


def psis(log_ratios: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto-smoothed importance weights that sum to one, and the Pareto k of the tail; fewer than `FEWEST` are not smoothed, and k is NaN."""
    if len(log_ratios) >= FEWEST and np.ptp(log_ratios) < 1e-8:  # the guide is the posterior; there is no tail to look at
        return np.full(len(log_ratios), 1.0 / len(log_ratios)), -math.inf
    smoothed, pareto_k = array_stats.psislw(-log_ratios) if len(log_ratios) >= FEWEST else (log_ratios, np.nan)
    weights = np.exp(smoothed - smoothed.max())
    return weights / weights.sum(), float(pareto_k)
