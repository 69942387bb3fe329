"""The calibration model: priors on parameter paths, the equilibrium as forward model, an observation likelihood.

All but the forward map stands in `ForwardModel`, which comparators share.
"""

import abc
import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array

from bayes_mfg.data import Population
from bayes_mfg.equilibrium import Code, Sampled, Scheme, TimeGrid, solve
from bayes_mfg.equilibrium.grid import MOST_INTERVALS
from bayes_mfg.equilibrium.methods import METHODS
from bayes_mfg.equilibrium.schemes import get_scheme
from bayes_mfg.errors import InputError
from bayes_mfg.games import Game, Parameter
from bayes_mfg.paths import BoundPath, Context, Path, PathFunction, PooledPath
from bayes_mfg.paths.priors import check_count

from .initial import Draw, FirstObserved, Initial, Known, resolve_initial
from .joint import JointPrior
from .observations import Clock, Observation, Record
from .pieces import as_path, beliefs, check_pieces, in_order_of_game
from .rebuilt import Rebuilt

INTERVALS = 100
"""Solver steps that the default number of substeps aims at."""


class Data(NamedTuple):
    """What a calibration conditions on, as one pytree of arrays, so that compiled functions serve any data of the same shapes.

    Attributes
    ----------
    record : see `Record`.
    initial : known parts of the initial populations, `(R, d)`.
    observed : observed shares without gaps, `(R, T_obs, d)`; zeros where no path looks at them.
    """

    record: Record
    initial: Array
    observed: Array


class Trajectories(NamedTuple):
    """What one draw of the unknowns implies.

    Attributes
    ----------
    parameters : name -> path on the grid, `(T, ...)`, or `(R, T, ...)` where it differs between trajectories.
    mu, value : `(R, T, d)`; NaN where the solve failed.
    code, residual, iterations : of the solves, `(R,)`, `(R,)`, `(R, 3)`.
    branch : posterior probability of every branch given this draw, `(R, K)`; None where there is one only. `mu` and `value` are those of one
        branch.
    correction : what the sum over branches adds to the log likelihood at `mu`, `(R,)`; None where there is one branch only.
    groups : name -> path of the typical trajectory, `(T, ...)` or, where it depends on a population, along that of each `(R, T, ...)`; of partially
        pooled paths.
    """

    parameters: dict[str, Array]
    mu: Array
    value: Array
    code: Array
    residual: Array
    iterations: Array
    branch: Array | None = None
    correction: Array | None = None
    groups: dict[str, Array] | None = None


class ForwardModel(Rebuilt, abc.ABC):
    """A NumPyro model of observed populations: unknowns with priors, populations that they imply, and an observation likelihood.

    Calling the object runs the NumPyro model, so that it can be handed to NumPyro's own tools; `bayes_mfg.inference` takes any forward model.
    A subclass says in `trajectories` how populations follow from the unknowns, and in `about` and `solver` what reports tell of it.

    Parameters
    ----------
    population : the data, with their states in the order of the model's.
    paths : parameter name -> `Path`.
    parameters : parameter name -> `Parameter` that the path is bound to.
    observation, initial, horizon, substeps : see `Calibration`.

    Attributes
    ----------
    bound : parameter name -> path bound to its parameter and to this model's grid.
    labels : parameter name -> names along the first axis of its value, where these have some.
    has_value : whether the agents' value means anything; elsewhere it is zero.
    compiled : compiled functions of this model's structure, kept by `inference`; shared by `with_population`.
    """

    has_value: ClassVar[bool] = True

    def __init__(
        self,
        population: Population,
        paths: Mapping[str, Path],
        parameters: Mapping[str, Parameter],
        observation: Observation,
        *,
        initial: Any,
        horizon: float | None,
        substeps: int | None,
    ) -> None:
        self.population = population
        self.observation = observation
        self.initial: Initial = resolve_initial(initial, population)
        self.grid = _grid(population.times, horizon, substeps, type(self).__name__)
        self.data_index = np.arange(population.n_times)
        self.context = Context(self.grid.times, population.times, population.states, population.n_trajectories)
        self.paths: dict[str, Path] = dict(paths)
        self.bound: dict[str, BoundPath] = {name: self._bind(path, parameters[name]) for name, path in self.paths.items()}
        self.labels: dict[str, tuple[str, ...]] = {}
        self.columns = observation.columns(population)
        self.state_index = observation.index(population)
        self.data = self._data(population)
        self.compiled: dict[str, Any] = {}
        self.joint: JointPrior | None = None

    @abc.abstractmethod
    def trajectories(self, latents: Mapping[str, Any], data: Data | None = None, key: Array | None = None) -> Trajectories:
        """Populations and parameter paths that the unknowns imply; pure and differentiable in forward and reverse mode.

        With a `key`, one of several equilibria is drawn by its probability given the unknowns and the data; without, the most probable is taken.
        """

    @property
    @abc.abstractmethod
    def about(self) -> dict[str, Any]:
        """What implies the populations, JSON-able: name, states, parameters (as the game lists them), constants."""

    @property
    @abc.abstractmethod
    def solver(self) -> dict[str, Any]:
        """Settings of the solver, for reports."""

    def arranged(self, population: Population) -> Population:
        """The population with its states in the order of the model's."""
        same = sorted(population.states) == sorted(self.population.states)
        return population.in_order_of(self.population.states) if same else population

    def with_population(self, population: Population, initial: Any = None) -> Self:
        """The same model for other data of the same shape, sharing everything compiled: for simulation studies.

        Parameters
        ----------
        population : the data.
        initial : known initial populations `(d,)` or `(R, d)` of these data, where the model's own are known ones; by default the model's.

        Raises
        ------
        InputError : when times, states or number of trajectories differ, or known initial populations are given to a model that infers them. What
            is masked may differ.
        """
        old = self.population
        if isinstance(population, Population) and population.n_states == old.n_states:
            population = self.arranged(population)
        same = (
            isinstance(population, Population)
            and np.array_equal(old.times, population.times)
            and old.states == population.states
            and old.n_trajectories == population.n_trajectories
            and self.observation.columns(population) == self.columns
        )
        if not same:
            raise InputError("with_population: times, states and number of trajectories must be those of the model's own data.")
        other = self._changed("with_population", population, initial)
        other.population = population
        if initial is not None:
            if not isinstance(self.initial, Known):
                raise InputError("with_population: this model has no known initial populations that others could replace.")
            other.initial = Known(initial)
        other.data = other._data(population)
        return other

    def with_paths(self, paths: Mapping[str, Path]) -> Self:
        """The same model with other paths for some of its parameters; nothing compiled is shared.

        Raises
        ------
        InputError : for a parameter that has no path here, and a path that does not fit its parameter.
        """
        if self.joint is not None:
            raise InputError(
                "with_paths: the model has one prior of all unknowns together (with_prior); change its paths before that."
            )
        for name, path in paths.items():
            if name not in self.bound or not isinstance(path, Path):
                raise InputError(f"with_paths: {name!r} is {path!r}; a path of one of {', '.join(self.bound)} is needed.")
        other = self._changed("with_paths", dict(paths))
        other.paths = {**self.paths, **paths}
        other.bound = {**self.bound, **{name: self._bind(path, self.bound[name].parameter) for name, path in paths.items()}}
        other.compiled = {}
        other.data = other._data(self.population)
        return other

    def with_prior(self, location: Any, covariance: Any) -> Self:
        """The same model with one normal prior of all unknowns together, such as `bayes_mfg.inference.learn_prior` finds; nothing compiled is shared.

        Parameters
        ----------
        location, covariance : `(k,)` and `(k, k)`, in the unconstrained coordinates of this model's unknowns (`unconstrained_posterior` of its fits
            names them).

        Raises
        ------
        InputError : for arrays that are no mean and covariance of this model's unknowns, and where trajectories have unknowns in common and of
            their own (pooled paths).
        """
        prior = JointPrior(location, covariance)
        if any(isinstance(path, PooledPath) for path in self.bound.values()):
            raise InputError("with_prior: a path is pooled, with unknowns that trajectories share; give it one of its own.")
        prior.check(lambda draw: self._drawn(draw, self.data))
        other = self._changed("with_prior", prior.location, prior.covariance)
        other.joint = prior
        other.compiled = {}
        return other

    def _bind(self, path: Path, parameter: Parameter) -> BoundPath:
        return path.bind(parameter, self.context)

    def _data(self, population: Population) -> Data:
        return self.arrays(population, self.initial)

    def arrays(self, population: Population, initial: Initial) -> Data:
        """What is conditioned on, of any number of trajectories with the model's times and states."""
        dtype = jnp.zeros(()).dtype
        record = self.observation.record(population)
        if isinstance(initial, FirstObserved):
            # What the start is taken from is no evidence about it, and would pass for an observation without noise.
            record = record._replace(mask=record.mask.at[:, 0].set(False))
        record = Record(*(x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else x for x in record))
        observed = np.zeros((population.n_trajectories, population.n_times, population.n_states))
        if any(path.needs_observed for path in self.bound.values()):
            if not population.fully_observed:
                raise InputError("A path takes the observed population as input, but some cells of the data are not observed.")
            observed = population.shares
        return Data(record, jnp.asarray(initial.fixed(population), dtype), jnp.asarray(observed, dtype))

    def latents(self, draw: Draw, data: Data) -> dict[str, Any]:
        """Draw all unknowns: raw parameters of every path, the observation model's own, and the initial populations `(R, d)`."""
        return self._drawn(draw if self.joint is None else self.joint.drawing(draw), data)

    def _drawn(self, draw: Draw, data: Data) -> dict[str, Any]:
        def named(name: str) -> Draw:
            return lambda raw_name, prior: draw(f"{name}/{raw_name}", prior)

        raw = {name: path.sample(named(name)) for name, path in self.bound.items()}
        own = {name: draw(name, prior) for name, prior in self.observation.drawn(len(self.columns)).items()}
        return {"raw": raw, "own": own, "mu0": self.initial.sample(draw, data.initial)}

    @property
    def local_sites(self) -> tuple[str, ...]:
        """Sites whose first axis are the trajectories, each row of which enters its own trajectory's likelihood alone."""
        if self.joint is not None:
            return ()
        of_paths = (f"{name}/{raw_name}" for name, path in self.bound.items() for raw_name in path.local)
        return (*of_paths, *self.initial.local_sites)

    def varies_by_trajectory(self, name: str) -> bool:
        """Whether a parameter's path differs between trajectories (it does where it is pooled or depends on a population)."""
        return isinstance(self.bound[name], PooledPath) or self.group_varies(name)

    def group_varies(self, name: str) -> bool:
        """Whether the typical trajectory's path depends on a population, so that it is told along that of every trajectory."""
        return self.bound[name].depends_on_population or self.bound[name].needs_observed

    def likelihood(self, latents: Mapping[str, Any], mu: Array, data: Data) -> dist.Distribution:
        """Distribution of the record given the populations on the grid `(R, T, d)`; where these are NaN, of some even population."""
        mu = jnp.where(jnp.isnan(mu), 1.0 / self.population.n_states, mu)
        seen, clock = mu[:, self.data_index], self.clock(self.population.times)
        return self.observation.distribution(seen, data.record.totals, latents["own"], self.state_index, clock)

    def clock(self, times: Any, from_start: bool | None = None) -> Clock:
        """Times `(T,)` since the start, and whether trajectories start from what was seen; by default as in this model."""
        taken = isinstance(self.initial, FirstObserved) if from_start is None else from_start
        return Clock(jnp.asarray(times, jnp.zeros(()).dtype) - self.grid.times[0], taken)

    def __call__(self, data: Data | None = None) -> None:
        """The NumPyro model."""
        data = self.data if data is None else data
        latents = self.latents(numpyro.sample, data)
        result = self.trajectories(latents, data)
        # A solve that failed makes the density NaN, never a number; samplers reject the point.
        found = jnp.all(result.code == Code.CONVERGED) & jnp.all(jnp.isfinite(result.mu))
        numpyro.factor("equilibrium", jnp.where(found, 0.0, jnp.nan))
        if result.correction is not None:
            numpyro.factor("branches", jnp.sum(result.correction))
        seen = self.likelihood(latents, result.mu, data).mask(data.record.mask)
        numpyro.sample(self.observation.variable, seen, obs=data.record.values)


class Calibration(ForwardModel):
    """A NumPyro model of observed populations as equilibria of a game with unknown parameters.

    Calling the object runs the NumPyro model, so that it can be handed to NumPyro's own tools; `bayes_mfg.inference.fit` is the shorter road.

    Parameters
    ----------
    game : the game. Its states must be those of the data, in any order; where either side has mere numbers for names, they are matched by place.
    population : the data.
    paths : parameter name -> `Path`, a NumPyro distribution (a constant with that prior), or a number (known).
    observation : the observation model.
    initial : None (unknown shares, uniform prior), "observed", an array `(d,)` or `(R, d)`, or an `Initial`.
    horizon : end of the game on the clock of the data, at or after the last datum; by default the last datum. The agents look ahead to it, and
        what lies beyond the data is a forecast.
    substeps : solver steps per grid interval; by default as many as give about 100 steps in all.
    scheme : time scheme of the solver.
    method : solver method.
    control : the population follows a social planner (mean field control) instead of an equilibrium.
    branches : for games with several equilibria: those that `bayes_mfg.equilibrium.enumerate` found, or pairs `(mu, value)` of arrays `(T, d)` on the
        model's grid, from which the solver sets out. Which of them a trajectory follows is a discrete unknown, uniform a priori and independent
        between trajectories, that is summed out of the likelihood; posterior draws of populations come from a branch drawn by its probability.
        At other parameters two of them may lead to one equilibrium: the probability is then shared between them and means nothing.

    Raises
    ------
    InputError : when the pieces do not fit together; the sentence says which and why.
    """

    def __init__(
        self,
        game: Game,
        population: Population,
        paths: Mapping[str, Any],
        observation: Observation,
        *,
        initial: Any = None,
        horizon: float | None = None,
        substeps: int | None = None,
        scheme: str | Scheme = "exponential",
        method: str = "auto",
        control: bool = False,
        branches: Sequence[Any] | None = None,
    ) -> None:
        if not isinstance(game, Game):
            raise InputError(f"game is {game!r}; a bayes_mfg.games.Game is needed.")
        check_pieces(population, observation)
        if not isinstance(paths, Mapping):
            raise InputError(f"paths is {paths!r}; a dict from parameter names to paths is needed.")
        if population.n_states != game.n_states:
            raise InputError(
                f"{type(game).__name__} has {game.n_states} states ({', '.join(game.state_names)}); "
                f"the data have {population.n_states} ({', '.join(population.states)})."
            )
        game.check_parameters(paths)
        self.game = game
        self.scheme = get_scheme(scheme)
        if not isinstance(method, str) or method not in METHODS:
            raise InputError(f"Calibration: unknown solver method {method!r}; choose one of {', '.join(METHODS)}.")
        self.method = method
        if not isinstance(control, bool):
            raise InputError(f"Calibration: control is {control!r}; True or False is needed.")
        self.control = control
        super().__init__(
            in_order_of_game(population, game),
            {name: as_path(path, name) for name, path in paths.items()},
            game.parameters,
            observation,
            initial=initial,
            horizon=horizon,
            substeps=substeps,
        )
        self.branches = beliefs(branches, (self.grid.points, game.n_states))

    def arranged(self, population: Population) -> Population:
        return in_order_of_game(population, self.game)

    def parameters(self, latents: Mapping[str, Any], trajectory: int, data: Data | None = None) -> dict[str, Any]:
        """Parameters of one trajectory's game, by its number, as `bayes_mfg.equilibrium.solve` takes them."""
        data = self.data if data is None else data
        own = jax.tree.map(lambda x: x[trajectory], self.own_raw(latents["raw"]))
        functions, _ = self.functions(latents["raw"], data.observed[trajectory], own)
        return self.sampled(functions, self.grid, latents["mu0"].dtype)

    def trajectories(self, latents: Mapping[str, Any], data: Data | None = None, key: Array | None = None) -> Trajectories:
        """Equilibria and parameter paths that the unknowns imply; pure and differentiable."""
        data = self.data if data is None else data
        dtype = latents["mu0"].dtype
        points = jnp.asarray(self.grid.times, dtype)

        def one(
            mu0: Array, observed: Array, own: dict[str, Any], guess: tuple[Array, Array] | None
        ) -> tuple[dict[str, Array], dict[str, Array], Any]:
            functions, typical = self.functions(latents["raw"], observed, own)
            params = self.sampled(functions, self.grid, dtype)
            eq = solve(
                self.game, params, mu0, self.grid, scheme=self.scheme, method=self.method, control=self.control, guess=guess
            )
            reported, groups = (
                {name: jax.vmap(function)(points, eq.mu) for name, function in some.items()} for some in (functions, typical)
            )
            return reported, groups, (eq.mu, eq.value, eq.status.code, eq.residual, eq.iterations)

        each, own = jax.vmap(one, in_axes=(0, 0, 0, None)), self.own_raw(latents["raw"])
        if self.branches is None:
            reported, groups, rest = each(latents["mu0"], data.observed, own, None)
            chosen = Trajectories(reported, *rest)._replace(groups=groups)
        else:
            guesses = tuple(jnp.asarray(part, dtype) for part in self.branches)
            reported, groups, rest = jax.vmap(lambda guess: each(latents["mu0"], data.observed, own, guess))(guesses)
            chosen = self._summed_out(latents, data, Trajectories(reported, *rest)._replace(groups=groups), key)
        return chosen._replace(
            parameters={name: path if self.varies_by_trajectory(name) else path[0] for name, path in chosen.parameters.items()},
            groups={name: path if self.group_varies(name) else path[0] for name, path in (chosen.groups or {}).items()},
        )

    def own_raw(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Raw parameters of every trajectory's own paths, `(R, ...)`, by parameter; of the pooled ones."""
        return {name: path.by_trajectory(raw[name]) for name, path in self.bound.items() if isinstance(path, PooledPath)}

    def functions(
        self, raw: Mapping[str, Any], observed: Array, own: Mapping[str, Any]
    ) -> tuple[dict[str, PathFunction], dict[str, PathFunction]]:
        """Paths of one trajectory as functions `(t, mu)`, and those of the typical one where paths are partially pooled.

        Parameters
        ----------
        raw : raw parameters, by parameter.
        observed : observed shares of the trajectory `(T_obs, d)`.
        own : its row of `own_raw`.
        """
        functions, typical = {}, {}
        for name, path in self.bound.items():
            seen = (jnp.asarray(self.population.times, observed.dtype), observed) if path.needs_observed else None
            functions[name] = (
                path.inner.function(own[name], seen) if isinstance(path, PooledPath) else path.function(raw[name], seen)
            )
            if path.has_group:
                typical[name] = path.function(raw[name], seen)
        return functions, typical

    def sampled(self, functions: Mapping[str, Any], grid: TimeGrid, dtype: Any) -> dict[str, Any]:
        """What `solve` takes for parameters: a path of time alone evaluated once, and not inside every iteration of the fixed point."""
        nodes = jnp.asarray(grid.fine_times, dtype)
        middles = 0.5 * (nodes[:-1] + nodes[1:])
        nobody = jnp.full((self.game.n_states,), 1.0 / self.game.n_states, dtype)

        def at(function: Any) -> Sampled:
            along = jax.vmap(lambda t: function(t, nobody))
            return Sampled(along(nodes), along(middles))

        moving = {name for name, path in self.bound.items() if path.depends_on_population}
        return {name: function if name in moving else at(function) for name, function in functions.items()}

    def _summed_out(self, latents: Mapping[str, Any], data: Data, several: Trajectories, key: Array | None) -> Trajectories:
        """One branch of every trajectory, and what the others add; arrays of `several` have a leading axis `(K, R)`.

        A branch whose solve failed makes the draw a failed one: it could have been the trajectory's.
        """

        def likelihood(mu: Array) -> Array:
            seen = self.likelihood(latents, mu, data)
            each = jnp.where(data.record.mask, seen.mask(data.record.mask).log_prob(data.record.values), 0.0)
            return jnp.sum(each.reshape(len(mu), -1), axis=1)

        log_likelihood = jax.vmap(likelihood)(several.mu)
        count = len(log_likelihood)
        total = jax.nn.logsumexp(log_likelihood, axis=0) - math.log(count)
        best = jnp.argmax(log_likelihood, axis=0) if key is None else jax.random.categorical(key, log_likelihood, axis=0)
        rows = jnp.arange(log_likelihood.shape[1])
        chosen: Trajectories = jax.tree.map(lambda x: x[best, rows], several)
        return chosen._replace(
            code=jnp.max(several.code, axis=0),
            residual=jnp.max(several.residual, axis=0),
            branch=jax.nn.softmax(log_likelihood, axis=0).T,
            correction=total - log_likelihood[best, rows],
        )

    @property
    def about(self) -> dict[str, Any]:
        game = self.game
        constants = {
            field.name: float(value) if np.size(value := getattr(game, field.name)) == 1 else np.asarray(value).tolist()
            for field in dataclasses.fields(game)
            if isinstance(value := getattr(game, field.name), int | float | np.ndarray | jax.Array)
            and not isinstance(value, bool)  # which formula, not which number
            and field.name not in self.paths
        }
        return {
            "name": type(game).__name__,
            "states": list(game.state_names),
            "parameters": parameters_in_words(game.parameters, self.paths),
            "constants": constants,
        }

    @property
    def solver(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "scheme": type(self.scheme).__name__,
            "control": int(self.control),  # NetCDF has no truth values
            "branches": 1 if self.branches is None else len(self.branches[0]),
            "tolerance": 1e-11 if jnp.zeros(()).dtype == jnp.float64 else 1e-5,
            "substeps": self.grid.substeps,
            "intervals": self.grid.intervals,
        }


def _grid(times: np.ndarray, horizon: float | None, substeps: int | None, where: str) -> TimeGrid:
    """Grid on the data's times and, at their typical step, on to the horizon."""
    if len(times) < 2:
        raise InputError(f"The data have {len(times)} time; at least two are needed.")
    if horizon is not None and not (isinstance(horizon, int | float | np.number) and math.isfinite(horizon)):
        raise InputError(f"horizon is {horizon!r}; a finite time is needed.")
    if horizon is not None and horizon > times[-1]:
        step = float(np.median(np.diff(times)))
        if horizon - times[-1] > MOST_INTERVALS * step:
            raise InputError(f"horizon is {horizon:g}; the data have a step of {step:g}, so that is too far to go.")
        count = max(1, round((horizon - times[-1]) / step))
        times = np.concatenate([times, np.linspace(times[-1], horizon, count + 1)[1:]])
    elif horizon is not None and horizon < times[-1]:
        raise InputError(f"horizon is {horizon:g}; the data go on until {times[-1]:g}.")
    if substeps is None:
        substeps = max(1, round(INTERVALS / (len(times) - 1)))
    return TimeGrid.from_times(times, check_count(substeps, "substeps", where))


def parameters_in_words(parameters: Mapping[str, Parameter], names: Collection[str]) -> list[dict[str, Any]]:
    """Those of the parameters that are named, JSON-able."""
    return [
        {"name": p.name, "unit": p.unit, "description": p.description, "lower": p.lower, "upper": p.upper}
        for p in parameters.values()
        if p.name in names
    ]


def describe(model: ForwardModel) -> dict[str, Any]:
    """The model in words and numbers, JSON-able, for fits and reports."""
    joint = {} if model.joint is None else {"prior": model.joint.words}
    return {
        **joint,
        "game": model.about,
        "paths": {name: path.description for name, path in model.bound.items()},
        "observation": model.observation.words,
        "initial": model.initial.words,
    }


__all__ = ["Calibration", "Data", "ForwardModel", "Trajectories", "describe"]
