"""How populations answer to parameters, moment by moment: derivatives of every share by every value of a path on the grid."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bayes_mfg.equilibrium import Code, solve
from bayes_mfg.errors import InputError
from bayes_mfg.models import Calibration, Data

from .coordinates import compiled, coordinates
from .errors import FitError
from .identifiability_points import located
from .sensitivity import COLUMNS


@dataclasses.dataclass(frozen=True, eq=False)
class Sensitivity:
    """Derivatives of the populations by the values of the parameters' paths on the grid, whatever family these come from.

    Attributes
    ----------
    at : the point, in words.
    times : the grid's, `(T,)`.
    mu : populations there, `(R, T, d)`.
    paths : parameter -> its path there, `(T, ...)` or `(R, T, ...)`.
    derivatives : parameter -> `(R, T, d, T, ...)`: trajectory, time and state of the share; time and entry of the parameter. A path is linear between
        the grid's points.
    """

    at: str
    times: np.ndarray
    mu: np.ndarray
    paths: dict[str, np.ndarray]
    derivatives: dict[str, np.ndarray]

    @property
    def singular_values(self) -> dict[str, np.ndarray]:
        """Parameter -> singular values of its derivatives, falling: all shares of all trajectories against all values of the path."""
        return {name: np.linalg.svd(self.matrix(name), compute_uv=False) for name in self.derivatives}

    def matrix(self, name: str) -> np.ndarray:
        """Derivatives by one parameter, `(R T d, T ...)`."""
        every = self.derivatives[name]
        return every.reshape(int(np.prod(every.shape[:3])), -1)

    def rank(self, name: str, share: float) -> int:
        """Number of singular values of a parameter above a share of the largest."""
        values = self.singular_values[name]
        return int(np.sum(values > share * values[0]))


def sensitivity(model: Calibration, at: Any = None) -> Sensitivity:
    """Exact derivatives of the populations by every value of every path, without prior and without observation model.

    Parameters
    ----------
    model : the model; paths that depend on the population are taken as given functions of time.
    at : the point, as in `identifiability`.

    Returns
    -------
    Sensitivity

    Raises
    ------
    InputError : for a model without a game, one of several `branches`, or a point that does not fit.
    FitError : when there is no equilibrium at the point.
    """
    if not isinstance(model, Calibration) or model.branches is not None:
        raise InputError("sensitivity: a bayes_mfg.models.Calibration without branches is needed.")
    point, name, _ = located(model, at, "sensitivity")
    function = compiled(model, "path_sensitivities", lambda: jax.jit(_made(model)))
    mu, code, paths, moved = function(jnp.asarray(point), model.data)
    if not np.all(np.asarray(code) == Code.CONVERGED):
        raise FitError(f"No equilibrium was found at {name}; sensitivity needs one: give another point by at=...")
    derivatives = {}
    for key, path in paths.items():
        own = model.varies_by_trajectory(key)
        columns = np.moveaxis(np.asarray(moved[key]), 0, -1)
        derivatives[key] = columns.reshape(*columns.shape[:-1], *path.shape[int(own) :])
    return Sensitivity(
        name, np.asarray(model.grid.times), np.asarray(mu), {k: np.asarray(v) for k, v in paths.items()}, derivatives
    )


def _made(model: Calibration) -> Any:
    space = coordinates(model)
    axes = {name: 0 if model.varies_by_trajectory(name) else None for name in model.bound}

    def all_of_it(flat: Array, data: Data) -> tuple[Array, Array, dict[str, Array], dict[str, Array]]:
        latents = space.latents(space.constrain(flat), data)
        paths = model.trajectories(latents, data).parameters

        def one(mu0: Array, params: dict[str, Array]) -> tuple[Array, Array]:
            eq = solve(model.game, params, mu0, model.grid, scheme=model.scheme, method=model.method, control=model.control)
            return eq.mu, eq.status.code

        def populations(params: dict[str, Array]) -> tuple[Array, Array]:
            return jax.vmap(one, in_axes=(0, axes))(latents["mu0"], params)

        mu, push, code = jax.linearize(populations, paths, has_aux=True)
        still = jax.tree.map(jnp.zeros_like, paths)

        def column(name: str, k: Array) -> Array:
            path = paths[name]
            count = len(path) if axes[name] == 0 else 1
            unit = jnp.zeros((count, path.size // count), path.dtype).at[:, k].set(1.0).reshape(path.shape)
            return push({**still, name: unit})

        moved = {}
        for name, path in paths.items():
            size = path.size // (len(path) if axes[name] == 0 else 1)
            moved[name] = lax.map(lambda k, name=name: column(name, k), jnp.arange(size), batch_size=COLUMNS)
        return mu, code, paths, moved

    return all_of_it
