"""A comparator without a game: a population that follows a learned nonlinear Markov drift."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from bayes_mfg.data import Population
from bayes_mfg.equilibrium import Code
from bayes_mfg.errors import InputError
from bayes_mfg.games.base import Parameter
from bayes_mfg.paths import BoundPath, Link, Neural, Path, PooledPath, Softplus

from .calibration import Data, ForwardModel, Trajectories, parameters_in_words
from .observations import Observation
from .pieces import check_pieces

PARAMETER = "rates"

MOVES = 4.0
"""Rates are measured in this many moves per span of the data, so that priors mean the same on every clock."""

SLACK = 1e-6
"""A population that leaves the simplex by more than this is a failed trajectory; less is an error of the integration and is taken off."""


class Rate(Link):
    """`unit * log(1 + exp(x))`.

    Parameters
    ----------
    unit : the rate that counts as one.
    """

    unit: float = eqx.field(static=True)

    @property
    def interval(self) -> tuple[float, float]:
        return Softplus().interval

    @property
    def default_level(self) -> float:
        return 0.5 * self.unit

    @property
    def scale_name(self) -> str:
        return "softplus"

    def __call__(self, x: Array) -> Array:
        return self.unit * jax.nn.softplus(x)

    def inverse(self, value: ArrayLike) -> np.ndarray:
        return Softplus().inverse(np.asarray(value, dtype=float) / self.unit)


class NeuralODE(ForwardModel):
    """A NumPyro model of observed populations that follow `d mu / dt = Q(t, mu)' mu`, with no game and no agents who look ahead.

    The rate from x to y is `unit * softplus(network(t, mu))[x, y]`, four moves per span of the data being the unit: positive for any weights, so
    that the equation keeps the population a distribution. It is what the game is compared with: as flexible, and without its structure. `fit`,
    predictions, reports and scores take it as they take `Calibration`; `value` and iterations are zero.

    Steps of diffrax's `Heun`, second order, `substeps` of equal length in every interval of the grid: the same numbers for the same weights,
    differentiable in forward and reverse mode. Heun's step is an average of Euler steps, so that shares stay positive, for any drift of
    this kind, where a step is at most as long as the mean stay in every state (`step * sum_y rates[x, y] <= 1`). Beyond that they may not, and a
    trajectory that leaves the simplex by more than 1e-6 has failed: it is NaN, with the code OFF_SIMPLEX, and takes more substeps. Smaller errors
    are taken off (negative shares become zero, and the mass one).

    Raw parameters: "rates/level" and the network's "rates/weights_0" and so on, all standard normal; see `bayes_mfg.paths.Neural`.
    Parameter "rates", one entry for each ordered pair of different states: the rates along every trajectory.

    Parameters
    ----------
    population : the data.
    width, depth : units per hidden layer, and hidden layers of the network.
    weight_scale : scale of weights and biases of the hidden layers; larger gives rates that vary faster with time and population.
    scale : prior sd of the network's output on the softplus scale, a number or a NumPyro prior on the positive numbers.
    observation, initial, horizon, substeps : as in `Calibration`.

    Raises
    ------
    InputError : when the pieces do not fit together; the sentence says which and why.

    References
    ----------
    Chen et al., Neural Ordinary Differential Equations, NeurIPS 2018; the drift that keeps the simplex is an own choice. Gottlieb, Shu and Tadmor,
    Strong stability-preserving high-order time discretization methods, SIAM Review 43 (2001), for Heun's step.
    """

    has_value: ClassVar[bool] = False

    def __init__(
        self,
        population: Population,
        *,
        width: int = 16,
        depth: int = 1,
        weight_scale: float = 2.0,
        scale: Any = 2.0,
        observation: Observation,
        initial: Any = None,
        horizon: float | None = None,
        substeps: int | None = None,
    ) -> None:
        check_pieces(population, observation)
        states, d = population.states, population.n_states
        if d < 2:
            raise InputError(f"NeuralODE: the data have {d} state; at least two are needed.")
        if population.n_times < 2:
            raise InputError(f"The data have {population.n_times} time; at least two are needed.")
        pairs = [(x, y) for x in range(d) for y in range(d) if x != y]
        # Rows are moves, columns states: one where a move begins, and where it ends.
        self.leaves, self.enters = (np.eye(d)[[pair[k] for pair in pairs]] for k in (0, 1))
        unit = MOVES / float(population.times[-1] - population.times[0])
        path = Neural(width, depth, weight_scale=weight_scale, scale=scale, link=Rate(unit=unit), input=("time", "population"))
        about = "rate of moving from one state to another"
        self.parameter = Parameter(PARAMETER, lower=0.0, unit="1/time", description=about, shape=(len(pairs),))
        super().__init__(
            population,
            {PARAMETER: path},
            {PARAMETER: self.parameter},
            observation,
            initial=initial,
            horizon=horizon,
            substeps=substeps,
        )
        self.labels = {PARAMETER: tuple(f"{states[x]} to {states[y]}" for x, y in pairs)}

    def _bind(self, path: Path, parameter: Parameter) -> BoundPath:
        bound = super()._bind(path, parameter)
        if isinstance(bound, PooledPath):
            raise InputError("NeuralODE: its rates are shared by all trajectories, and cannot be pooled.")
        words = bound.description.replace("the equilibrium population", "the population")
        return dataclasses.replace(bound, description=words)

    def trajectories(self, latents: Mapping[str, Any], data: Data | None = None, key: Array | None = None) -> Trajectories:
        """Populations and rates that the unknowns imply; pure and differentiable in forward and reverse mode."""
        rates = self.bound[PARAMETER].function(latents["raw"][PARAMETER])
        start = latents["mu0"]
        nodes = jnp.asarray(self.grid.fine_times, start.dtype)
        leaves, enters = jnp.asarray(self.leaves, start.dtype), jnp.asarray(self.enters, start.dtype)

        def drift(t: Any, mu: Array, rates: Any) -> Array:
            flow = jax.vmap(lambda shares: (leaves @ shares) * rates(t, shares))(mu)
            return flow @ (enters - leaves)

        equation, method = diffrax.ODETerm(drift), diffrax.Heun(scan_kind="bounded")

        def step(carry: tuple[Array, Any], times: tuple[Array, Array]) -> tuple[tuple[Array, Any], Array]:
            mu, memory = carry
            mu, _, _, memory, _ = method.step(equation, *times, mu, rates, memory, made_jump=False)
            return (mu, memory), mu

        # All trajectories take a step together. Steps are taken one by one, and not by diffrax's own loop, because that many fixed ones
        # need none of its bookkeeping: a tenth of the time with gradients, and JAX differentiates a scan in both modes.
        memory = method.init(equation, nodes[0], nodes[1], start, rates)
        _, after = jax.lax.scan(step, (start, memory), (nodes[:-1], nodes[1:]))
        mu, code = jax.vmap(settle)(jnp.moveaxis(jnp.concatenate([start[None], after]), 0, 1))
        mu = mu[:, :: self.grid.substeps]
        along = jax.vmap(jax.vmap(rates), in_axes=(None, 0))(jnp.asarray(self.grid.times, start.dtype), mu)
        nothing = jnp.zeros(len(start), start.dtype)
        return Trajectories({PARAMETER: along}, mu, jnp.zeros_like(mu), code, nothing, jnp.zeros((len(start), 3), int))

    @property
    def about(self) -> dict[str, Any]:
        return {
            "name": type(self).__name__,
            "kind": "comparator",
            "states": list(self.population.states),
            "parameters": parameters_in_words({PARAMETER: self.parameter}, [PARAMETER]),
            "constants": {},
        }

    @property
    def solver(self) -> dict[str, Any]:
        return {
            "method": "Heun",
            "equilibria": "none",
            "substeps": self.grid.substeps,
            "intervals": self.grid.intervals,
        }


def settle(mu: Array) -> tuple[Array, Array]:
    """Populations `(M + 1, d)` without their small errors, and how the integration ended; NaN where it failed."""
    finite = jnp.all(jnp.isfinite(mu))
    mass = jnp.sum(mu[0])
    inside = (jnp.min(mu) >= -SLACK) & (jnp.max(jnp.abs(jnp.sum(mu, axis=-1) - mass)) <= SLACK)
    began = (jnp.min(mu[0]) >= -SLACK) & (jnp.abs(mass - 1.0) <= 1e-5)
    code = jnp.where(inside, Code.CONVERGED, jnp.where(finite, Code.OFF_SIMPLEX, Code.NOT_FINITE))
    code = jnp.where(finite & ~began, Code.NO_DISTRIBUTION, code)
    shares = jnp.maximum(mu, 0.0)
    shares = shares * (mass / jnp.sum(shares, axis=-1, keepdims=True))
    return jnp.where(code == Code.CONVERGED, shares, jnp.nan), code
