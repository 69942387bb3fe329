"""Variational inference in the coordinates whitened at the mode, with NumPyro's guides."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import Array, lax
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal

from bayes_mfg.errors import InputError
from bayes_mfg.models import Calibration, Data

from .coordinates import coordinates
from .errors import FitError
from .point import Mode
from .progress import bar

GUIDES: dict[str, Any] = {"mean-field": AutoNormal, "low-rank": AutoLowRankMultivariateNormal, "full": AutoMultivariateNormal}
CHUNK = 100
"""Optimiser steps per compiled call."""


@dataclasses.dataclass(frozen=True)
class Approximation:
    """Draws from a fitted guide.

    Attributes
    ----------
    flat : unconstrained draws `(draw, size)`, all of finite density.
    stats : lp, per draw, `(1, draw)`.
    settings : ELBO, steps, skipped updates and rejected draws, for the record.
    warnings : sentences for the user.
    """

    flat: np.ndarray
    stats: dict[str, np.ndarray]
    settings: dict[str, Any]
    warnings: list[str]


def approximate(
    model: Calibration,
    mode: Mode,
    *,
    guide: str = "full",
    num_steps: int = 3000,
    learning_rate: float = 0.01,
    num_particles: int = 8,
    num_samples: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> Approximation:
    """Fit a normal guide to the posterior by stochastic gradients of the ELBO, starting as the Laplace approximation.

    The guide lives on `x` with `latents = mode + factor @ x`: "mean-field" is a diagonal normal in these rotated coordinates, "low-rank" and "full"
    add covariance. Updates whose ELBO is not finite (an equilibrium was not found) are skipped and counted.

    Raises
    ------
    InputError : for an unknown guide.
    FitError : when no draw of the fitted guide has an equilibrium.
    """
    if guide not in GUIDES:
        raise InputError(f"Unknown guide {guide!r}; choose one of {', '.join(GUIDES)}.")
    space = coordinates(model)
    location, factor = jnp.asarray(mode.location), jnp.asarray(mode.factor)

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

    losses, skipped = [], 0
    with bar(num_steps, "svi", progress) as shown:
        for done in range(0, num_steps, CHUNK):
            length = min(CHUNK, num_steps - done)
            state, some, lost = chunk(state, length, model.data)
            losses.append(np.asarray(some)[:length])
            skipped += int(lost)
            shown.update(length)
    trace = np.concatenate(losses)
    x = family.sample_posterior(jax.random.key(seed + 1), runner.get_params(state), sample_shape=(num_samples,))["x"]
    flat = np.asarray(location + x @ factor.T)
    density = -np.asarray(
        jax.jit(lambda many, data: lax.map(lambda z: space.potential(z, data), many))(jnp.asarray(flat), model.data)
    )
    good = np.isfinite(density)
    if not good.any():
        raise FitError("No draw of the fitted guide has an equilibrium that the solver finds.")
    warnings = []
    if not good.all():
        warnings.append(
            f"{int((~good).sum())} of {num_samples} draws of the guide have no equilibrium that the solver finds; they were left out."
        )
    if skipped:
        warnings.append(f"{skipped} of {num_steps} variational updates were skipped because an equilibrium was not found.")
    tail = trace[np.isfinite(trace)][-max(num_steps // 10, 1) :]
    settings = {
        "guide": guide,
        "num_steps": num_steps,
        "num_samples": int(good.sum()),
        # The guide lives in whitened coordinates: their volume makes it a bound on the log evidence.
        "elbo": float(-tail.mean() + np.linalg.slogdet(mode.factor)[1]),
        "skipped_updates": skipped,
        "rejected_draws": int((~good).sum()),
    }
    return Approximation(flat[good], {"lp": density[good][None]}, settings, warnings)
