"""Run a benchmark: simulate, fit, score; one row per model and data set."""

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from arviz_stats.base import array_stats

from bayes_mfg import games
from bayes_mfg.data import Population
from bayes_mfg.data.simulate import OfPopulation, simulate
from bayes_mfg.equilibrium import Branch, TimeGrid
from bayes_mfg.errors import InputError
from bayes_mfg.inference.coordinates import Coordinates, compiled, coordinates
from bayes_mfg.inference.fit import draw
from bayes_mfg.inference.point import find_mode
from bayes_mfg.inference.scores import crps_of_draws
from bayes_mfg.models import Calibration, Dirichlet, Multinomial, NeuralODE, Observation, SimplexGaussian
from bayes_mfg.models.calibration import ForwardModel
from bayes_mfg.paths import Neural

from .systems import Benchmark, benchmark

log = logging.getLogger(__name__)

METHODS = ("point", "paper", "svi", "nuts")

COMPARATORS = ("forward", "neural_ode")

AGENTS = 1000
"""Individuals behind the counts of the emissions game."""

SCREENED = 30
"""Prior draws that are looked at before the search for the mode of a game with several equilibria."""

EXACT = 1e-6
"""Standard deviation under which data without noise are fitted: the solver's scheme is exact for them, the optimiser is not."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes
    ----------
    system, case, noise, states : which benchmark; noise is 0 for none.
    model : "game", "forward" (mean-field dynamics without a game) or "neural_ode".
    method, seed : how it was fitted, and the seed of data and fit.
    mu_error : mean over test trajectories of the mean over times of `sum_x (mu_pred - mu_obs)^2`, with the posterior mean as prediction.
    noise_floor : the same with the true population as prediction.
    gamma_error : `||gamma_pred - gamma|| / ||gamma||` over all parameters and times, with the posterior median path; along the true test
        populations where parameters depend on them. NaN for models without parameters.
    coverage90, width90 : part of the times at which the central 90 % band of the parameters holds the truth, and the mean width of the band,
        relative to the mean size of the true parameters; NaN for point estimates and data without noise.
    crps : continuous ranked probability score of the parameters against the truth, mean over times, in their units; of a point its distance.
    pareto_k, r_hat : of a variational fit, and the largest over parameters' times of a sampled one; NaN for others.
    seconds : of the fit, with the searches under softer games and the fit that parameters are learned from; that of the first data set includes
        compiling, and where parameters are learned that of every one.
    estimates : name -> 5 % quantile, median, 95 % quantile, for constants without a known truth; and for data from one of several equilibria
        "branch" -> mean posterior probability of the right one over the draws, of a point fit at the mode.
    reweighted : whether the draws of a variational fit were resampled by their importance ratios; if not, the band is the guide's.
    lost_draws : draws without an equilibrium on the test data, left out of the prediction.
    warnings : what the fit says that a reader must know.
    given : parameters that were learned from another case's data and taken for known.
    """

    system: str
    case: str
    noise: float
    states: int
    model: str
    method: str
    seed: int
    mu_error: float
    noise_floor: float
    gamma_error: float
    coverage90: float
    width90: float
    crps: float
    pareto_k: float
    r_hat: float
    seconds: float
    estimates: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    reweighted: bool = False
    lost_draws: int = 0
    warnings: tuple[str, ...] = ()
    given: dict[str, float] = dataclasses.field(default_factory=dict)


def reproduce(
    system: str,
    *,
    case: str | None = None,
    noise: float | None = None,
    states: int | None = None,
    seeds: int = 1,
    first: int = 0,
    method: str = "svi",
    comparators: bool = False,
    finer: int = 1,
    scheme: str = "exponential",
    trajectories: int | None = None,
    draws: int = 1000,
    progress: bool | None = None,
) -> Iterator[Row]:
    """Rows of one benchmark, one data set after the other.

    Parameters
    ----------
    system, case, states : see `SYSTEMS`; the first case and size by default.
    noise : eps of the noise `Dirichlet(mu / eps)`; 0 for none; by default the paper's for this system, or none.
    seeds, first : number of data sets, and the first one's seed.
    method : "point" (posterior mode; with several equilibria sought from the prior median and the most probable of `SCREENED` prior draws), "paper"
        (the paper's network, trained as in the paper for 500 epochs with a learning rate of 5e-3 and a tenth of the data held out), "svi" (Laplace,
        resampled by importance where Pareto k allows it) or "nuts".
    comparators : fit forward dynamics and a neural ODE, too.
    finer : data are simulated on a grid so many times finer, and observed on the fit's; 1 takes the fit's own grid, as the paper does.
    scheme : time scheme of the fit, "exponential" or "paper".
    trajectories : training trajectories, in place of the paper's number.
    draws : of the posterior, per chain for NUTS a quarter of it.
    progress : show progress bars.

    Yields
    ------
    Row

    Raises
    ------
    InputError : for unknown names and numbers out of range.
    """
    chosen = benchmark(system, case, states)
    level = chosen.noise or 0.0 if noise is None else noise
    _check(level=level, seeds=seeds, first=first, finer=finer, draws=draws, trajectories=trajectories, method=method)
    own_data = chosen.data is not None or bool(chosen.branches)
    if own_data and (noise is not None or finer != 1 or trajectories is not None):
        raise InputError(
            f"reproduce: the data of {system!r} have their own noise, grid and numbers; noise, finer and trajectories are not for it."
        )
    if trajectories is not None:
        chosen = dataclasses.replace(chosen, size=dataclasses.replace(chosen.size, train=trajectories))
    unlearned, learned = chosen, _Learned()
    known: dict[str, tuple[ForwardModel, ForwardModel]] = {}
    soft: list[ForwardModel] = []
    for seed in range(first, first + seeds):
        if unlearned.learned_from:
            learned = _learned(unlearned, scheme, seed, progress)
            chosen = dataclasses.replace(
                unlearned,
                paths={**unlearned.paths, **learned.given},
                estimated=tuple(name for name in unlearned.estimated if name not in learned.given),
            )
            known = {}  # known parameters are part of a model's structure
        train, test, clean = _data(chosen, level, seed, finer, scheme)
        for kind in ("game", *(COMPARATORS if comparators else ())):
            own = kind == "game"
            # Comparators are fitted as points: they are scored on populations alone.
            how = method if own else "point"
            if kind not in known:
                known[kind] = (
                    _model(chosen, kind, train, level, scheme, how),
                    _model(chosen, kind, test, level, scheme, how),
                )
            # Data sets have one shape: what was compiled for the first serves all.
            model, held_out = (m.with_population(p, _starts(p)) for m, p in zip(known[kind], (train, test), strict=True))
            begin = time.perf_counter()
            start = None
            if own and chosen.softer and how != "paper":
                for k, game in enumerate(chosen.softer):
                    softer = dataclasses.replace(chosen, game=game)
                    if k == len(soft):
                        soft.append(_model(softer, "game", train, level, scheme, how))
                    # Each mode is where the search under the next game sets out, beside the prior median.
                    easy = soft[k].with_population(train, _starts(train))
                    start = find_mode(easy, seed=seed, starts=1, start=start, curvature=False, progress=progress).location
            flat, settings, told = _fit(model, how if own else "comparator", seed, draws, progress, start)
            seconds = time.perf_counter() - begin
            mu_error, floor, lost = _population_errors(held_out, flat, test, clean)
            if own and chosen.branches:
                mu_error = math.nan  # the test data themselves chose the equilibrium
            judged = (
                _judge(chosen, model, flat, clean, bool(level) or chosen.observation is not None)
                if own and clean is not None
                else _NOTHING
            )
            told_of = learned if kind != "neural_ode" else _Learned()
            pareto_k = float(settings.get("pareto_k", math.nan))
            estimates = _estimates(chosen, model, flat, seed) if own else {}
            yield Row(
                chosen.system,
                chosen.case,
                level,
                chosen.states,
                kind,
                how,
                seed,
                mu_error,
                floor,
                **judged,
                pareto_k=pareto_k,
                seconds=seconds + told_of.seconds,
                estimates=estimates,
                reweighted=bool(settings.get("importance", False)),
                lost_draws=lost,
                warnings=(*told_of.warnings, *told),
                given=dict(told_of.given),
            )


def training_model(
    chosen: Benchmark, method: str, *, noise: float = 0.0, seed: int = 0, trajectories: int | None = None
) -> ForwardModel:
    """The model that `method` fits, with the training data of one seed.

    Parameters
    ----------
    chosen : the benchmark.
    method : one of `METHODS`.
    noise, seed, trajectories : as of `reproduce`.

    Raises
    ------
    InputError : for a case whose parameters are learned from another one's data.
    """
    if chosen.learned_from:
        raise InputError(f"training_model: parameters of {chosen.case!r} are learned from data of {chosen.learned_from!r}.")
    if trajectories is not None:
        chosen = dataclasses.replace(chosen, size=dataclasses.replace(chosen.size, train=trajectories))
    train, _, _ = _data(chosen, noise, seed, 1, "exponential")
    return _model(chosen, "game", train, noise, "exponential", method)


_NOTHING = dict.fromkeys(("gamma_error", "coverage90", "width90", "crps", "r_hat"), math.nan)


def _check(*, level: float, seeds: int, first: int, finer: int, draws: int, trajectories: int | None, method: str) -> None:
    if method not in METHODS:
        raise InputError(f"reproduce: there is no method {method!r}; choose one of {', '.join(METHODS)}.")
    if not (isinstance(level, int | float) and math.isfinite(level) and level >= 0):
        raise InputError(f"reproduce: noise is {level!r}; a number of at least 0 is needed.")
    whole = {
        "seeds": (seeds, 1),
        "first": (first, 0),
        "finer": (finer, 1),
        "draws": (draws, 16),
        "trajectories": (trajectories, 1),
    }
    for name, (value, least) in whole.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise InputError(f"reproduce: {name} is {value!r}; a whole number of at least {least} is needed.")


def _data(
    chosen: Benchmark, level: float, seed: int, finer: int, scheme: str
) -> tuple[Population, Population, Population | None]:
    """Training and test data, and the test populations without noise, None where these are unknown."""
    if chosen.data is not None:
        return (*chosen.data(seed), None)
    rng = np.random.default_rng([seed, 1])  # not the noise's stream
    made_by = chosen.made_by or chosen.game
    size = chosen.size
    starts = chosen.starts(rng, size.train + size.test, chosen.states)
    grid = TimeGrid(chosen.horizon, (chosen.points - 1) * finer + 1)
    options: dict[str, Any] = {
        "observe_every": finer * chosen.observe_every,
        "scheme": scheme if finer == 1 else "exponential",
        "control": chosen.control,
    }
    if chosen.branches:
        branch = chosen.branches[seed % len(chosen.branches)].equilibrium
        options["guess"] = branch.mu, branch.value
    noisy: dict[str, Any] = {"noise": "dirichlet", "size": level} if level else {}
    if isinstance(chosen.observation, Multinomial):
        noisy = {"noise": "multinomial", "size": AGENTS}
    train = simulate(made_by, chosen.truth, starts[: size.train], grid, seed=seed, **options, **noisy)
    test = simulate(made_by, chosen.truth, starts[size.train :], grid, seed=seed + 10**6, **options, **noisy)
    clean = simulate(made_by, chosen.truth, starts[size.train :], grid, **options)
    return train, test, clean


class _Learned(NamedTuple):
    """What another case's data say about parameters: their values, seconds, and what a reader must know of the fit."""

    given: Mapping[str, float] = MappingProxyType({})
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()


def _learned(chosen: Benchmark, scheme: str, seed: int, progress: bool | None) -> _Learned:
    """Parameters of forward dynamics, at the mode, on data of `chosen.learned_from` that are no others' training or test data."""
    begin = time.perf_counter()
    other = benchmark(chosen.system, chosen.learned_from, chosen.states)
    train, _, _ = _data(other, 0.0, seed + 2 * 10**6, 1, scheme)
    model = _model(other, "forward", train, 0.0, scheme, "point")
    flat, _, told = _fit(model, "comparator", seed, 1, progress)
    space = coordinates(model)
    given = {name: float(_constant(model, space, jnp.asarray(flat[0, 0]), name)) for name in model.bound}
    return _Learned(given, time.perf_counter() - begin, tuple(f"{chosen.learned_from}: {sentence}" for sentence in told))


def _starts(population: Population) -> np.ndarray | None:
    """The true initial populations; None for agents, whose first count is the truth."""
    given = population.provenance.get("initial")
    return None if given is None else np.asarray(given)


def _model(chosen: Benchmark, kind: str, train: Population, level: float, scheme: str, method: str) -> ForwardModel:
    observation: Observation = chosen.observation or (Dirichlet() if level else SimplexGaussian(scale=EXACT))
    starts = _starts(train)
    initial = "observed" if starts is None else starts
    if kind == "neural_ode":
        return NeuralODE(train, observation=observation, initial=initial)
    game, priors = chosen.game, dict(chosen.paths)
    if kind == "forward":
        if isinstance(game, games.LinearQuadratic | games.ElFarol | games.MeetingArrival):
            # Without a game nobody moves, or all at one rate: rates themselves are learned, as the paper's baseline does.
            game, priors = games.BikeShare(chosen.states), {"base_rate": Neural(scale=1.0)}
        for name in ("contact_cost", "congestion"):
            priors.pop(name, None)  # prices of what nobody minds
        game = games.ForwardDynamics(game)
    elif method == "paper":
        priors = {
            name: prior if isinstance(prior, int | float | np.ndarray) else Neural.published() for name, prior in priors.items()
        }
        observation = SimplexGaussian(scale=math.sqrt(level) if level else EXACT)
    return Calibration(
        game,
        train,
        priors,
        observation,
        initial=initial,
        substeps=chosen.observe_every,
        scheme=scheme,
        control=chosen.control and kind == "game",
        branches=[_on(chosen, branch) for branch in chosen.branches] if kind == "game" else [],
    )


def _on(chosen: Benchmark, branch: Branch) -> tuple[np.ndarray, np.ndarray]:
    """An equilibrium at the times that are observed."""
    mu, value = (np.asarray(x)[:: chosen.observe_every] for x in (branch.equilibrium.mu, branch.equilibrium.value))
    return mu, value


def _estimates(chosen: Benchmark, model: ForwardModel, draws: np.ndarray, seed: int) -> dict[str, tuple[float, ...]]:
    space = coordinates(model)
    flat = jnp.asarray(_some(draws, 1000))
    found: dict[str, tuple[float, ...]] = {}
    for name in chosen.estimated:
        values = np.asarray(jax.vmap(lambda x, name=name: _constant(model, space, x, name))(flat))
        found[name] = tuple(float(q) for q in np.quantile(values, (0.05, 0.5, 0.95)))
    if chosen.branches:
        branch = compiled(
            model,
            "branch",
            lambda: jax.jit(lambda x, data: model.trajectories(space.latents(space.constrain(x), data), data).branch),
        )
        some = jnp.asarray(_some(draws, 50))
        right = np.stack([np.asarray(branch(x, model.data)) for x in some])[..., seed % len(chosen.branches)]
        found["branch"] = (float(right.mean()),)
    return found


def _constant(model: ForwardModel, space: Coordinates, x: Any, name: str) -> Any:
    """A parameter's value at the first time."""
    raw = space.latents(space.constrain(x), model.data)["raw"][name]
    return model.bound[name].function(raw)(model.grid.times[0], jnp.ones(model.population.n_states) / model.population.n_states)


def _fit(
    model: ForwardModel, method: str, seed: int, draws: int, progress: bool | None, start: np.ndarray | None = None
) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """Draws `(chain, draw, size)`, settings and what a reader must know."""
    options: dict[str, dict[str, Any]] = {
        # One start: the truth is inside the prior, and a wrong mode would show in the scores.
        "svi": {"guide": "laplace", "importance": True, "num_samples": draws, "starts": 1},
        "nuts": {"num_samples": max(4, draws // 4)},
        "paper": {"objective": "paper", "learning_rate": 5e-3},
        # Where equilibria jump, searches from far away crawl along the cliffs, or end on one.
        "point": {"starts": 2, "screened": SCREENED} if getattr(model, "branches", None) is not None else {},
        "comparator": {"starts": 1},
    }
    kind = "point" if method in ("paper", "comparator") else method
    if start is not None:
        options[method]["start"] = start
    flat, _, settings, warnings = draw(model, kind, seed=seed, progress=progress, **options[method])
    if settings.get("interrupted"):
        raise KeyboardInterrupt  # part of a fit is no row of a table
    for sentence in warnings:
        log.warning("%s", sentence)
    return flat, settings, warnings


def _some(flat: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the draws, spread evenly, `(draw, size)`."""
    flat = flat.reshape(-1, flat.shape[-1])
    return flat if len(flat) <= most else flat[np.linspace(0, len(flat) - 1, most).round().astype(int)]


def _population_errors(
    held_out: ForwardModel, flat: np.ndarray, test: Population, clean: Population | None
) -> tuple[float, float, int]:
    """Error of the predicted test populations, the noise floor, and the number of draws left out of the prediction."""
    space = coordinates(held_out)

    def predicted(x: Any, data: Any) -> Any:
        return held_out.trajectories(space.latents(space.constrain(x), data), data).mu

    one = compiled(held_out, "predicted", lambda: jax.jit(predicted))
    mu = np.stack([np.asarray(one(x, held_out.data)) for x in jnp.asarray(_some(flat, 100))])
    found = np.isfinite(mu).all(axis=(1, 2, 3))
    if not found.all():
        log.warning(
            "%d of %d draws have no equilibrium on the test data; they are left out of the prediction.",
            int((~found).sum()),
            len(found),
        )
    mean = mu[found].mean(axis=0) if found.any() else np.full(mu.shape[1:], np.nan)
    seen = test.shares

    def error(mu: np.ndarray) -> float:
        return float(np.mean(np.sum((mu - seen) ** 2, axis=-1)))

    return error(mean[:, held_out.data_index]), math.nan if clean is None else error(clean.shares), int((~found).sum())


def _judge(chosen: Benchmark, model: ForwardModel, draws: np.ndarray, clean: Population, noisy: bool) -> dict[str, float]:
    """Scores of the parameters against the truth, over all parameters, times and, where they depend on populations, test trajectories."""
    space = coordinates(model)
    chains, length = draws.shape[:2]
    flat = draws.reshape(chains * length, -1)
    times = jnp.asarray(clean.times)
    square = truth_square = 0.0
    inside, width, size, scores, r_hat = [], [], [], [], []
    for name, given in chosen.truth.items():
        bound = model.bound[name]
        if not bound.priors:
            continue  # was told
        of_population = isinstance(given, OfPopulation) or bound.depends_on_population or bound.needs_observed
        along = jnp.asarray(clean.shares if of_population else clean.shares[:1])
        exact = given if callable(given) else lambda t, mu, given=given: jnp.asarray(given, float)
        truth = np.asarray(jax.vmap(lambda mu, exact=exact: jax.vmap(exact)(times, mu))(along))

        def path(x: Any, mu: Any, bound: Any = bound, name: str = name) -> Any:
            raw = space.latents(space.constrain(x), model.data)["raw"][name]
            # A network that reads the observed population is given the true one of the test.
            seen = (times, mu) if bound.needs_observed else None
            return jax.vmap(bound.function(raw, seen))(times, mu)

        each = jax.jit(jax.vmap(lambda x, path=path, along=along: jax.vmap(lambda mu: path(x, mu))(along)))
        drawn = np.concatenate([np.asarray(each(jnp.asarray(part))) for part in np.array_split(flat, math.ceil(len(flat) / 100))])
        if truth.shape[-2:] == (chosen.states, chosen.states):
            # Diagonals of rates do not enter.
            elsewhere = ~np.eye(chosen.states, dtype=bool)
            truth, drawn = truth[..., elsewhere], drawn[..., elsewhere]
        middle = np.median(drawn, axis=0)
        square += float(np.sum((middle - truth) ** 2)) / len(along)
        truth_square += float(np.sum(truth**2)) / len(along)
        low, high = np.quantile(drawn, (0.05, 0.95), axis=0)
        inside.append(np.mean((low <= truth) & (truth <= high)))
        width.append(np.mean(high - low))
        size.append(np.mean(np.abs(truth)))
        # Of a point the score is its distance.
        each_score = (
            crps_of_draws(drawn.reshape(len(drawn), -1), truth.reshape(-1)) if len(drawn) > 1 else np.abs(drawn[0] - truth)
        )
        scores.append(each_score.mean())
        if chains > 1:
            cells = drawn.reshape(chains, length, -1)
            r_hat.append(max(float(array_stats.rhat(cells[:, :, k], chain_axis=0, draw_axis=1)) for k in range(cells.shape[2])))
    # Without noise the width of the band is that of the small error that the fit was told, and no finding.
    point = len(flat) == 1 or not noisy
    return {
        "gamma_error": math.sqrt(square / truth_square),
        "coverage90": math.nan if point else float(np.mean(inside)),
        "width90": math.nan if point else float(np.sum(width) / np.sum(size)),
        "crps": float(np.mean(scores)),
        "r_hat": float(np.max(r_hat, initial=-math.inf)) if r_hat else math.nan,  # NaN if one is
    }


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a table, one line per benchmark, model and method.

    Medians over data sets, of which one without a figure makes the median one; the mean of the coverage; the worst Pareto k and R-hat; how many
    data sets there are, and how many were reweighted.
    """
    frame = pd.DataFrame([dataclasses.asdict(row) for row in rows])
    keys = ["system", "case", "noise", "states", "model", "method"]
    grouped = frame.groupby(keys, sort=False, dropna=False)
    made = grouped[["mu_error", "noise_floor", "gamma_error", "width90", "crps", "seconds"]].agg(lambda x: x.median(skipna=False))
    made.insert(3, "coverage90", grouped["coverage90"].agg(lambda x: x.mean(skipna=False)))
    made[["pareto_k", "r_hat"]] = grouped[["pareto_k", "r_hat"]].agg(lambda x: x.max(skipna=False))
    made["reweighted"] = grouped["reweighted"].sum()
    made.insert(0, "seeds", grouped.size())
    return made.reset_index()
