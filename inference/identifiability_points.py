"""Points at which identifiability is asked for: prior median, fits, given values."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel

from .coordinates import coordinates
from .identifiability_words import listing
from .linearised import blocks
from .result import Fit, best_draw, compared_in_words


def located(model: ForwardModel, at: Any, who: str, field: str = "at") -> tuple[np.ndarray, str, list[str]]:
    """One point, its name, and what must be said of it; `who` asks, by the argument `field`, for the messages."""
    space = coordinates(model)
    if at is None:
        return space.prior_median(), "the prior median", []
    if isinstance(at, Fit):
        for what, same in compared_in_words(at.tree, model):
            if not same:  # the same coordinates would be other values
                raise InputError(
                    f"{who}: {field} is a fit of another model, whose {what} differ; fit this one, or give the values as a dict."
                )
        flat = at.tree["unconstrained_posterior"]["latent"].to_numpy()
        flat = flat.reshape(-1, flat.shape[-1])
        return (
            (best_draw(at), "the mode of a fit", []) if len(flat) == 1 else (np.median(flat, axis=0), "the median of a fit", [])
        )
    if isinstance(at, str):
        raise InputError(f"{who}: {field} is {at!r}; a fit, a dict of values or an array of coordinates is needed.")
    if isinstance(at, Mapping):
        return _at_values(model, at, who, field)
    try:
        flat = np.asarray(at, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{who}: {field} is {at!r}; a fit, a dict of values or an array of coordinates is needed.") from error
    if flat.shape != (space.size,) or not np.all(np.isfinite(flat)):
        raise InputError(f"{who}: {field} has shape {flat.shape}; {space.size} finite unconstrained coordinates are needed.")
    return flat, "the given point", []


def _at_values(model: ForwardModel, at: Mapping[Any, Any], who: str, field: str) -> tuple[np.ndarray, str, list[str]]:
    """The point with given parameters: raw unknowns of a path are those nearest to the prior median whose path is the given one."""
    space, parts, told = coordinates(model), blocks(model), []
    flat = np.array(space.prior_median())
    for name, given in at.items():
        if name not in parts:
            raise InputError(f"{who}: {field} has {name!r}; the model's unknowns are {listing(list(parts))}.")
        target = _numbers(name, given, who, field)
        if name in model.bound:
            flat[parts[name]], off = _fitted(model, name, target, flat, who, field)
            if off > 0.01:
                told.append(f"The path of {name} cannot follow the given one: it is off by up to {100 * off:.0f} % of its size.")
            continue
        site = name if name in space.shapes else ""
        shape = np.shape(space.constrain(jnp.asarray(flat)).get(site, np.nan)) if site else ()
        if not site or target.shape not in (shape, shape[1:]):
            raise InputError(f"{who}: {field} has {name!r} of shape {target.shape}; {shape} is needed.")
        sites = {**space.constrain(jnp.asarray(flat)), site: jnp.asarray(np.broadcast_to(target, shape))}
        flat = np.array(space.unconstrain(sites))
        if not np.all(np.isfinite(flat)):
            raise InputError(f"{who}: {field} has {name!r} = {given!r}, which its prior excludes.")
    return flat, "the given values", told


def _numbers(name: Any, given: Any, who: str, field: str) -> np.ndarray:
    try:
        target = np.asarray(given, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{who}: {field} has {name!r} = {given!r}; numbers are needed.") from error
    if not np.all(np.isfinite(target)):
        raise InputError(f"{who}: {field} has {name!r} = {given!r}; finite numbers are needed.")
    return target


def _fitted(
    model: ForwardModel, name: str, target: np.ndarray, start: np.ndarray, who: str, field: str
) -> tuple[np.ndarray, float]:
    """Coordinates of one path that bring it to a target, and how far it stays off, relative to the target's size."""
    path, space, place = model.bound[name], coordinates(model), blocks(model)[name]
    if path.depends_on_population or path.needs_observed:
        raise InputError(f"{who}: {field} has {name!r}, whose path depends on a population; give a fit or coordinates.")
    path.parameter.check(target, f"{who}: {field}")
    shape = (model.grid.points, *path.parameter.shape)
    if target.shape not in (path.parameter.shape, shape):
        raise InputError(f"{who}: {field} has {name!r} of shape {target.shape}; {path.parameter.shape} or {shape} is needed.")
    wanted = np.broadcast_to(target, shape)
    size = max(float(np.abs(wanted).max()), 1e-12)
    times, nobody = jnp.asarray(model.grid.times), jnp.full(model.population.n_states, 1.0 / model.population.n_states)

    @jax.jit
    def misfit(part: jax.Array) -> jax.Array:
        latents = space.latents(space.constrain(jnp.asarray(start).at[place].set(part)), model.data)
        function = path.function(latents["raw"][name])
        off = (jax.vmap(function, (0, None))(times, nobody) - wanted) / size
        return jnp.concatenate([jnp.ravel(off), 1e-6 * (part - start[place])])

    slope = jax.jit(jax.jacfwd(misfit))
    end = scipy.optimize.least_squares(
        lambda x: np.asarray(misfit(jnp.asarray(x))),
        start[place],
        jac=lambda x: np.asarray(slope(jnp.asarray(x))),
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    return end.x, float(np.abs(end.fun[: wanted.size]).max())
