"""Exact and deliberately wrong samplers for the model with one unknown; in a module of their own, so that other processes find them."""

import jax
import jax.numpy as jnp
import numpy as np

from bayes_mfg.inference import FitError
from bayes_mfg.inference.coordinates import compiled, coordinates

GRID = jnp.linspace(-4.0, 4.0, 1601)
DRAWS = 99


def exact(model, *, seed):
    """Independent draws of the unconstrained unknown, by quadrature; equilibria do not depend on the data, and are solved once."""
    space = coordinates(model)

    def populations(x):
        return model.trajectories(space.latents(space.constrain(x[None]), model.data)).mu

    def density(x, mu, data):
        seen = model.likelihood(space.latents(space.constrain(x[None]), data), mu, data).mask(data.record.mask)
        solved = jnp.where(jnp.isfinite(mu).all(), 0.0, -jnp.inf)
        return jnp.sum(seen.log_prob(data.record.values)) - space.prior_potential(x[None], data) + solved

    mu = compiled(model, "on a grid", lambda: jax.jit(jax.vmap(populations))(GRID))
    height = np.asarray(compiled(model, "densities", lambda: jax.jit(jax.vmap(density, (0, 0, None))))(GRID, mu, model.data))
    reached = np.cumsum(np.exp(height - height.max()))
    places = np.random.default_rng(seed).uniform(size=DRAWS) * reached[-1]
    return np.interp(places, reached, GRID)[None, :, None]


def narrow(model, *, seed):
    """Draws too close to their mean by 30 %."""
    x = exact(model, seed=seed)
    return x.mean() + 0.7 * (x - x.mean())


def shifted(model, *, seed):
    """Draws beside the posterior by half its sd."""
    x = exact(model, seed=seed)
    return x + 0.5 * x.std()


def prior(model, *, seed):
    """Draws of LogNormal(0, 0.5) that never look at the data: each unknown's ranks are uniform, and only the log likelihood tells."""
    return 0.5 * np.random.default_rng(seed).standard_normal((1, DRAWS, 1))


def moved(model, *, seed, by):
    """Draws beside the posterior by so much."""
    return exact(model, seed=seed) + by


def sometimes(model, *, seed):
    """Gives up on about half of the data."""
    if seed % 2:
        raise FitError("no luck")
    return exact(model, seed=seed)


def breaking(model, *, seed):
    """Breaks on about half of the data, by an error of its own."""
    if seed % 2:
        raise ZeroDivisionError("none left")
    return exact(model, seed=seed)


def flat(model, *, seed):
    """Draws of a wrong shape."""
    return exact(model, seed=seed).ravel()
