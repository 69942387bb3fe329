"""The windowed least-squares fit of arXiv 2606.23155: Adam on minibatches, several seeds at once, early stopping on held-out trajectories."""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from bayes_mfg.equilibrium import Code
from bayes_mfg.errors import InputError
from bayes_mfg.models import Data, ForwardModel
from bayes_mfg.models.observations import Record
from bayes_mfg.paths import PooledPath

from .coordinates import Coordinates, compiled, coordinates
from .errors import FitError
from .progress import bar

MOST_EPOCHS_PER_CALL = 25
"""Epochs inside one compiled call, at most; the progress bar moves between calls."""

SECONDS_PER_CALL = 0.5
"""Calls grow until they take about this long."""


@dataclasses.dataclass(frozen=True)
class PaperFit:
    """Result of the windowed least-squares fit.

    A loss is a mean over trajectories and times of the squared error of `mu`, summed over the observed states. That of a checkpoint is over all
    times of the held-out trajectories, or of all trajectories where none is held out.

    Attributes
    ----------
    location : unconstrained coordinates of the best seed's best checkpoint, `(size,)`.
    loss : its loss.
    best : index of the best seed.
    locations : best checkpoint of every seed, `(seeds, size)`; NaN for a seed without one.
    losses : their losses, `(seeds,)`; infinite for a seed without one.
    history : mean loss over the windows of every epoch, `(seeds, epochs)`; NaN after a seed has stopped.
    checks : loss after every epoch, `(seeds, epochs)`; NaN where a solve failed and after a seed has stopped.
    held_out : indices of the held-out trajectories.
    stopped_after : epochs that every seed ran, `(seeds,)`.
    skipped : updates that every seed skipped because a solve failed, `(seeds,)`.
    """

    location: np.ndarray
    loss: float
    best: int
    locations: np.ndarray
    losses: np.ndarray
    history: np.ndarray
    checks: np.ndarray
    held_out: np.ndarray
    stopped_after: np.ndarray
    skipped: np.ndarray


class State(NamedTuple):
    """What one seed carries from epoch to epoch."""

    flat: Array
    adam: optax.OptState
    skipped: Array
    best: Array
    lowest: Array
    waited: Array
    """Epochs since the lowest loss."""
    epochs: Array


def fit_paper(
    model: ForwardModel,
    *,
    seed: int = 0,
    seeds: int = 1,
    epochs: int = 500,
    learning_rate: float = 1e-3,
    batch: int = 10,
    window: float = 0.2,
    held_out: float = 0.1,
    patience: int | None = 100,
    progress: bool | None = None,
) -> PaperFit:
    """Least squares in random windows with Adam, as in arXiv 2606.23155; priors draw the start and play no other part.

    Every step takes a minibatch of trajectories, solves their equilibria over the whole horizon and compares `mu` with the recorded shares on a
    random window of the observed times. After every epoch the loss over the whole horizon is taken on held-out trajectories, whose data enter no
    gradient; the checkpoint at which it is lowest is kept. Whole epochs run inside compiled calls, and all seeds advance together. An update is
    skipped where a solve of the minibatch fails; a seed all of whose updates of an epoch were skipped goes halfway to its checkpoint or, without
    one, to the prior median.

    Steps are taken in the unconstrained coordinates, in which a network's weights are standard normal under the prior: a step of
    `learning_rate` moves a weight by `learning_rate` times its prior sd, `weight_scale / sqrt(fan_in)`. For 64 units and `weight_scale=2` that is a
    quarter, and 5e-3 here does what Adam with 1e-3 does in the weights themselves. Where the populations say little about a path the start
    decides: `Neural.published(weight_scale=1.0)` starts smoother, which helps where the truth is smooth.

    Parameters
    ----------
    model : the model; its observation model says which cells count, its likelihood is not used. Unknowns that do not enter `mu`, such as noise
        scales, stay at their prior median.
    seed : of the initial point (a prior draw of the paths), windows and batches.
    seeds : number of independent runs, with the seeds `seed, seed + 1, ...`; the one with the lowest loss is the result.
    epochs : passes over the trajectories, at most.
    learning_rate : of Adam.
    batch : trajectories per step.
    window : share of the observed times in a window, in (0, 1].
    held_out : share of the trajectories that is held out, in [0, 1), at least one trajectory where there are two; which ones is drawn
        once for all seeds, the same whatever `seed`. With 0, with a single trajectory, and with unknown initial populations (those of a held-out
        trajectory would never be fitted), the loss of all trajectories decides.
    patience : epochs without a lower loss after which a seed stops; None for never.
    progress : show a progress bar; by default on a terminal only.

    Raises
    ------
    InputError : for a model with pooled paths.
    FitError : when no epoch of any seed ends at parameters whose equilibria are all found.
    """
    for name, path in model.bound.items():
        if isinstance(path, PooledPath):
            raise InputError(
                f'The objective "paper" has no priors, without which the pooled path of {name} means nothing; use "map".'
            )
    space = coordinates(model)
    record, weights = _shares_of(model)
    train, held = _split(model, np.asarray(weights), held_out)
    size = min(batch, len(train))
    length = max(1, round(window * record.shape[1]))
    advance = compiled(model, f"paper {size} {length}", lambda: _advance(model, space, size, length))
    keys = jnp.stack([jax.random.key(seed + k) for k in range(seeds)])
    centre = jnp.asarray(space.prior_median())
    states = jax.vmap(_start)(_initial_points(model, space, keys, centre))
    arguments = (
        centre,
        epochs + 1 if patience is None else patience,
        learning_rate,
        jnp.asarray(train),
        jnp.asarray(held if len(held) else train),
        record,
        weights,
        model.data,
    )
    number, many, logs = 0, 1, []
    with bar(epochs, "adam", progress) as shown:
        while number < epochs:
            begin = time.perf_counter()
            until = min(number + many, epochs)
            reached, states, log = advance(states, keys, number, until, *arguments)
            reached = int(reached)
            logs.append(np.asarray(log)[..., : reached - number])
            shown.set_postfix_str(f"loss {float(jnp.min(states.lowest)):.2e}", refresh=False)
            shown.update(reached - number)
            if reached < until:
                break
            number = reached
            if time.perf_counter() - begin < 0.5 * SECONDS_PER_CALL:
                many = min(2 * many, MOST_EPOCHS_PER_CALL)
    history, checks = np.concatenate(logs, axis=-1)
    lowest = np.asarray(states.lowest)
    if not np.isfinite(lowest).any():
        raise FitError(
            "No epoch of the least-squares fit ended at parameters whose equilibria were all found; try another seed or prior."
        )
    best = int(np.argmin(lowest))
    locations = np.where(np.isfinite(lowest)[:, None], np.asarray(states.best), np.nan)
    return PaperFit(
        locations[best],
        float(lowest[best]),
        best,
        locations,
        lowest,
        history,
        checks,
        held,
        np.asarray(states.epochs),
        np.asarray(states.skipped),
    )


def paths_of_seeds(model: ForwardModel, found: PaperFit) -> dict[str, np.ndarray]:
    """Parameter paths at the best checkpoint of every seed that has one: a deep ensemble.

    Returns
    -------
    dict
        Name -> `(seeds, T, ...)`, or `(seeds, R, T, ...)` where the path differs between trajectories.
    """
    space = coordinates(model)

    def make() -> Any:
        def paths(flat: Array, data: Data) -> dict[str, Array]:
            return model.trajectories(space.latents(space.constrain(flat), data), data).parameters

        return jax.jit(jax.vmap(paths, in_axes=(0, None)))

    some = found.locations[np.isfinite(found.losses)]
    return {name: np.asarray(x) for name, x in compiled(model, "paper paths", make)(some, model.data).items()}


def spread(model: ForwardModel, found: PaperFit) -> dict[str, float]:
    """How far the seeds' parameter paths lie apart: norm of the sd over seeds, divided by the norm of their mean.

    Of unknown paths; empty where fewer than two seeds have a checkpoint.
    """
    if np.isfinite(found.losses).sum() < 2:
        return {}
    return {
        name: float(np.linalg.norm(path.std(axis=0, ddof=1)) / np.linalg.norm(path.mean(axis=0)))
        for name, path in paths_of_seeds(model, found).items()
        if model.bound[name].priors
    }


def _split(model: ForwardModel, weights: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the trajectories that are trained on, and of those held out; trajectories without a datum are in neither."""
    rows = np.flatnonzero(weights.any(axis=(1, 2)))
    rows = rows if rows.size else np.arange(len(weights))
    if not share or len(rows) < 2 or model.initial.unknown_states(model.population):
        return rows, rows[:0]
    count = min(max(1, round(share * len(rows))), len(rows) - 1)
    held = np.sort(np.random.default_rng(0).permutation(rows)[:count])
    return np.setdiff1d(rows, held), held


def _initial_points(model: ForwardModel, space: Coordinates, keys: Array, centre: Array) -> Array:
    """A prior draw of every path and, for all other unknowns, the prior median `centre`: `(seeds, size)`."""
    points = jnp.stack([space.unconstrain(space.draw_prior(key)) for key in keys])
    of_paths = np.array([name.split("/")[0] in model.bound and "/" in name for name in space.names])
    return jnp.where(of_paths, points, centre)


def _start(flat: Array) -> State:
    nothing = jnp.zeros((), int)
    lowest = jnp.full((), jnp.inf, flat.dtype)
    return State(flat, optax.scale_by_adam().init(flat), nothing, flat, lowest, nothing, nothing)


def _advance(model: ForwardModel, space: Coordinates, size: int, length: int) -> Any:
    """Compiled function that runs epochs of all seeds.

    Parameters
    ----------
    size : trajectories per step.
    length : observed times per window.

    Returns
    -------
    function
        `(states, keys, first, until, centre, patience, learning_rate, train, held, record, weights, data) -> (number, states, log)`: epochs `first`
        to `until - 1`, fewer when all seeds have stopped. `log` holds the mean loss of the windows and the loss after the epoch,
        `(2, seeds, MOST_EPOCHS_PER_CALL)`.
    """
    optimiser = optax.scale_by_adam()

    def loss(flat: Array, rows: Array, weight: Array, record: Array, data: Data) -> Array:
        latents = space.latents(space.constrain(flat), data)
        latents = {**latents, "mu0": latents["mu0"][rows]}
        part = Data(Record(*(x[rows] for x in data.record)), data.initial[rows], data.observed[rows])
        result = model.trajectories(latents, part)
        failed = jnp.any(result.code != Code.CONVERGED)
        squared = weight * (result.mu[:, model.data_index][..., model.state_index] - record[rows]) ** 2
        # Mean over trajectories and over the times that carry weight, sum over states.
        per_time = jnp.maximum(jnp.sum(jnp.any(weight > 0, axis=-1)), 1)
        return jnp.where(failed, jnp.nan, jnp.sum(squared) / per_time)

    def advance(
        states: State,
        keys: Array,
        first: Array,
        until: Array,
        centre: Array,
        patience: Array,
        learning_rate: Array,
        train: Array,
        held: Array,
        record: Array,
        weights: Array,
        data: Data,
    ) -> tuple[Array, State, Array]:
        times = record.shape[1]
        steps = train.shape[0] // size

        def step(carry: tuple[Array, optax.OptState, Array], inputs: tuple[Array, Array]) -> tuple[Any, Array]:
            flat, adam, skipped = carry
            rows, begin = inputs
            inside = (jnp.arange(times) >= begin) & (jnp.arange(times) < begin + length)
            value, gradient = jax.value_and_grad(loss)(flat, rows, weights[rows] * inside[None, :, None], record, data)
            fine = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
            direction, moved = optimiser.update(jnp.where(fine, gradient, 0.0), adam)
            flat = jnp.where(fine, flat - learning_rate * direction, flat)
            adam = jax.tree.map(lambda new, old: jnp.where(fine, new, old), moved, adam)
            return (flat, adam, skipped + ~fine), value

        def epoch(state: State, key: Array, number: Array) -> tuple[State, Array]:
            shuffle, place = jax.random.split(jax.random.fold_in(key, number))
            rows = jax.random.permutation(shuffle, train)[: steps * size].reshape(steps, size)
            begins = jax.random.randint(place, (steps,), 0, times - length + 1)
            (flat, adam, skipped), values = lax.scan(step, (state.flat, state.adam, state.skipped), (rows, begins))
            # Where no equilibrium is found there is no gradient to leave by.
            home = jnp.where(jnp.isfinite(state.lowest), state.best, centre)
            flat = jnp.where(skipped - state.skipped < steps, flat, 0.5 * (flat + home))
            check = loss(flat, held, weights[held], record, data)
            better = check < state.lowest
            new = State(
                flat,
                adam,
                skipped,
                jnp.where(better, flat, state.best),
                jnp.where(better, check, state.lowest),
                jnp.where(better, 0, state.waited + 1),
                state.epochs + 1,
            )
            running = state.waited < patience
            kept = jax.tree.map(lambda after, before: jnp.where(running, after, before), new, state)
            return kept, jnp.where(running, jnp.stack([jnp.nanmean(values), check]), jnp.nan)

        def going(carry: tuple[Array, State, Array]) -> Array:
            number, states, _ = carry
            return (number < until) & jnp.any(states.waited < patience)

        def body(carry: tuple[Array, State, Array]) -> tuple[Array, State, Array]:
            number, states, log = carry
            states, told = jax.vmap(epoch, in_axes=(0, 0, None))(states, keys, number)
            return number + 1, states, log.at[:, :, number - first].set(told.T)

        log = jnp.full((2, keys.shape[0], MOST_EPOCHS_PER_CALL), jnp.nan, record.dtype)
        return lax.while_loop(going, body, (jnp.asarray(first), states, log))

    return jax.jit(advance)


def _shares_of(model: ForwardModel) -> tuple[Array, Array]:
    """Recorded shares of the states looked at, `(R, T, k)`, and their weights: one where observed, else zero."""
    shares = model.population.shares[..., model.state_index]
    return jnp.asarray(np.nan_to_num(shares)), jnp.asarray(np.isfinite(shares).astype(float))
