"""The middle way between a point estimate and a full posterior of a network: its body as a fit found it, its last layer Bayesian."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel
from bayes_mfg.paths import Body, Neural, Pooled

from .coordinates import coordinates
from .result import Fit, best_draw


def last_layer(fit: Fit) -> ForwardModel:
    """The model of a fit with the hidden layers of its networks fixed as the fit has them; levels and output weights stay unknown.

    Two lines make the fit:

        found = bm.inference.fit(model, "point")
        posterior = bm.inference.fit(bm.inference.last_layer(found))

    The body is empirical Bayes: chosen by the data that the last layer is then fitted to. Uncertainty of the body is left out, so that bands are too
    narrow, most where the data say little.

    Parameters
    ----------
    fit : a fit with its model, most often a point fit; of several draws the one of the highest density is taken, or the last where densities are not
        known.

    Returns
    -------
    ForwardModel
        A model of the same kind, data and priors, whose `Neural` paths have a known `body`. To load a fit of it later, make it again from the same
        fit: `load(path, last_layer(load(first, model)))`.

    Raises
    ------
    InputError : for what is no fit, a fit loaded without its model, a model without networks whose bodies are unknown, and one with pooled networks.
    """
    if not isinstance(fit, Fit):
        raise InputError(f"last_layer: fit is {type(fit).__name__}; a Fit is needed.")
    if fit.model is None:
        raise InputError("last_layer: this fit was loaded without its model; use load(path, model=...).")
    model = fit.model
    pooled = [name for name, path in model.paths.items() if isinstance(path, Pooled) and isinstance(path.path, Neural)]
    if pooled:
        raise InputError(f"last_layer: the network of {pooled[0]} is pooled over trajectories; that has no one body.")
    networks = {name: path for name, path in model.paths.items() if isinstance(path, Neural) and path.body is None}
    if not networks:
        raise InputError("last_layer: the model has no Neural path whose body is unknown.")
    flat = best_draw(fit)
    sites = coordinates(model).constrain(jnp.asarray(flat))
    paths = {}
    for name, path in networks.items():
        raw = {site.removeprefix(f"{name}/"): np.asarray(value) for site, value in sites.items() if site.startswith(f"{name}/")}
        body = Body.from_raw(raw, f"as a fit by {fit.method} of seed {fit.tree.attrs['seed']} found it")
        paths[name] = dataclasses.replace(path, body=body)
    return model.with_paths(paths)
