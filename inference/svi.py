"""Variational inference in the coordinates whitened at the mode, with NumPyro's guides; the Laplace approximation among them."""

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
from .coordinates import coordinates, potential
from .errors import FitError
from .point import Mode, exact_curvature, flat_directions
from .progress import bar

GUIDES: dict[str, Any] = {"mean-field": AutoNormal, "low-rank": AutoLowRankMultivariateNormal, "full": AutoMultivariateNormal}
CHUNK = 100
"""Optimiser steps per compiled call: between two of them progress is shown, a checkpoint written, an interrupt heard."""


def reliable(draws: int) -> float:
    """Pareto k up to which importance ratios of so many draws can be trusted.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, Pareto smoothed importance sampling, JMLR 25 (2024).
    """
    return min(0.7, 1.0 - 1.0 / math.log10(draws)) if draws > 10 else 0.0


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
    """

    flat: np.ndarray
    stats: dict[str, np.ndarray]
    settings: dict[str, Any]
    warnings: list[str]


def check(guide: Any, importance: Any) -> None:
    """Refuse what is no guide, and what is no choice.

    Raises
    ------
    InputError : naming what was given.
    """
    if guide not in (*GUIDES, "laplace"):
        raise InputError(f"Unknown guide {guide!r}; choose one of laplace, {', '.join(GUIDES)}.")
    if not isinstance(importance, bool):
        raise InputError(f"svi: importance is {importance!r}; True or False is needed.")


def approximate(
    model: ForwardModel,
    mode: Mode,
    *,
    guide: str = "full",
    importance: bool = False,
    num_steps: int = 3000,
    learning_rate: float = 0.01,
    num_particles: int = 8,
    num_samples: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
    checkpoint: Checkpoint | None = None,
) -> Approximation:
    """Fit a normal guide to the posterior by stochastic gradients of the ELBO, starting as the Laplace approximation.

    The guide lives on `x` with `latents = mode + factor @ x`: "mean-field" is a diagonal normal in these rotated coordinates, "low-rank" and "full"
    add covariance. Updates whose ELBO is not finite (an equilibrium was not found) are skipped and counted. "laplace" takes no updates: it is the
    normal at the mode with the inverse of the exact curvature there.

    Every guide is judged by the Pareto k of its importance ratios, smoothed (PSIS): up to a limit (`reliable`) they can be trusted, and with
    `importance` the draws are resampled by them, which corrects what the guide gets wrong.

    With a checkpoint, every `CHUNK` updates are kept as they are made, and those that it holds are not made again. An interrupt (Ctrl-C) ends the
    updates, and the guide is taken as it is by then; before the first `CHUNK` it is passed on.

    Raises
    ------
    InputError : for an unknown guide.
    FitError : when no draw of the fitted guide has an equilibrium.
    """
    check(guide, importance)
    space = coordinates(model)
    if guide == "laplace":
        covariance, root, flat = exact_curvature(model, mode.location)
        mode = dataclasses.replace(mode, covariance=covariance, factor=root, flat=flat)
    location, factor = jnp.asarray(mode.location), jnp.asarray(mode.factor)
    if guide == "laplace":
        normal = dist.Normal(jnp.zeros(space.size), 1.0).to_event(1)
        x = normal.sample(jax.random.key(seed), (num_samples,))
        return _judged(model, mode, x, normal.log_prob(x), {"guide": guide}, flat_directions(mode), importance, seed)

    def whitened(data: Data) -> None:
        x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), (space.size,)))
        with handlers.block():  # the model's own sites are none of the guide's
            density = -space.potential(location + factor @ x, data)
        numpyro.factor("density", density)

    family = GUIDES[guide](whitened, init_loc_fn=numpyro.infer.init_to_value(values={"x": jnp.zeros(space.size)}), init_scale=1.0)
    steps = optax.exponential_decay(learning_rate, num_steps, 0.1)
    runner = SVI(whitened, family, optax.adam(steps), Trace_ELBO(num_particles=num_particles))
    state = runner.init(jax.random.key(seed), model.data)

    @jax.jit
    def chunk(state: Any, length: Array, data: Data) -> tuple[Any, Array, Array]:
        def step(i: Array, carry: tuple) -> tuple:
            state, losses, skipped = carry
            state, loss = runner.stable_update(state, data)
            return state, losses.at[i].set(loss), skipped + ~jnp.isfinite(loss)

        return lax.fori_loop(0, length, step, (state, jnp.full((CHUNK,), jnp.nan), jnp.zeros((), int)))

    losses: list[np.ndarray] = []
    skipped = 0
    with bar(num_steps, "svi", progress) as shown:
        for part in [] if checkpoint is None else checkpoint.read("svi"):
            state = unpack(state, part)
            losses.append(part["losses"])
            skipped += int(part["skipped"])
            shown.update(len(losses[-1]))
        try:
            for done in range(sum(map(len, losses)), num_steps, CHUNK):
                length = min(CHUNK, num_steps - done)
                ahead, some, lost = chunk(state, length, model.data)
                made = {
                    "losses": np.asarray(some)[:length],
                    "skipped": np.asarray(lost),
                }  # an interrupt is heard while these are waited for
                if checkpoint is not None:
                    checkpoint.write("svi", len(losses), {**made, **pack(ahead)})
                state, skipped = ahead, skipped + int(lost)
                losses.append(made["losses"])
                shown.update(length)
        except KeyboardInterrupt:
            if not losses:
                raise
    trace = np.concatenate(losses)
    interrupted = len(trace) < num_steps
    params = runner.get_params(state)
    x = family.sample_posterior(jax.random.key(seed + 1), params, sample_shape=(num_samples,))["x"]
    diagonal = isinstance(family, AutoNormal)
    fitted = _diagonal(params) if diagonal else family.get_posterior(params)
    warnings = flat_directions(mode)
    if interrupted:
        warnings.append(f"Interrupted after {len(trace)} of {num_steps} variational updates; the guide may not have settled.")
    if skipped:
        warnings.append(f"{skipped} of {len(trace)} variational updates were skipped because an equilibrium was not found.")
    tail = trace[np.isfinite(trace)][-max(len(trace) // 10, 1) :]
    settings = {
        "guide": guide,
        "num_steps": len(trace),
        **({"interrupted": True} if interrupted else {}),
        # The guide lives in whitened coordinates: their volume makes it a bound on the log evidence.
        "elbo": float(-tail.mean() + np.linalg.slogdet(mode.factor)[1]),
        "skipped_updates": skipped,
    }
    return _judged(model, mode, x, fitted.log_prob(x), settings, warnings, importance, seed)


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
        **({} if np.isnan(pareto_k) else {"pareto_k": pareto_k}),
        "importance_ess": float(1.0 / np.sum(weights**2)),
        "importance": importance and trusted,
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
