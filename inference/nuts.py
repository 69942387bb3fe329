"""NUTS from the mode, in coordinates whitened by the curvature there; NumPyro's sampler does the sampling."""

import concurrent.futures
import dataclasses
import logging
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import io_callback
from numpyro.infer.hmc import hmc
from scipy.stats import chi2

from bayes_mfg.models import ForwardModel

from .centring import centred, centring, shares
from .checkpoint import Checkpoint, pack, unpack
from .coordinates import compiled, coordinates, potential
from .errors import FitError
from .parallel import cores
from .point import Mode
from .progress import bar

log = logging.getLogger(__name__)

NUM_WARMUP = 300

CHUNK = 50
"""Draws per compiled call: between two of them progress is shown, a checkpoint written, an interrupt heard."""


@dataclasses.dataclass(frozen=True)
class Draws:
    """What NUTS returns.

    Attributes
    ----------
    flat : unconstrained draws, `(chain, draw, size)`.
    stats : per draw: diverging, failed_solve, energy, n_steps, tree_depth, acceptance_rate, lp, step_size; each `(chain, draw)`.
    chain_method : how the chains were run, in words.
    warmup_steps : leapfrog steps spent in warm-up, over all chains.
    warmup_bad : transitions of the warm-up, over all chains, that diverged or ended at a failed solve.
    interrupted : whether an interrupt ended the chains before their time.
    centring : for every pooled parameter the mean share by which its deviations were centred.
    """

    flat: np.ndarray
    stats: dict[str, np.ndarray]
    chain_method: str
    warmup_steps: int
    warmup_bad: int
    interrupted: bool = False
    centring: dict[str, float] = dataclasses.field(default_factory=dict)


def layout(num_chains: int) -> list[int]:
    """Chains vectorised in each thread: on a CPU as even as can be over the cores for this process, on an accelerator all in one."""
    groups = min(num_chains, len(cores())) if jax.default_backend() == "cpu" else 1
    return [len(part) for part in np.array_split(np.arange(num_chains), groups)]


def sample(
    model: ForwardModel,
    mode: Mode,
    *,
    num_chains: int = 4,
    num_warmup: int = NUM_WARMUP,
    num_samples: int = 500,
    seed: int = 0,
    target_accept_prob: float = 0.8,
    max_tree_depth: int = 10,
    progress: bool | None = None,
    checkpoint: Checkpoint | None = None,
) -> Draws:
    """Draw from the posterior with NumPyro's NUTS.

    The sampler works on `x` with `latents = mode + factor @ x`, so that the posterior is close to a standard normal where the data speak; step size
    and a diagonal mass matrix are adapted in warm-up. Chains start at Laplace draws around the mode; where the search for it found others that are
    about as probable (`Mode.others`), chains take turns in starting there, so that R-hat can tell whether they went from one to the other. On a CPU
    chains are split over threads, one per core, and vectorised inside each; on an accelerator all are vectorised. Deviations of pooled paths are
    centred as far as `bayes_mfg.inference.centring` says, and `x` then stands for the coordinates in which they are.

    A point at which an equilibrium is not found has a NaN density: the trajectory ends there, and the transition is counted as a failed solve and not
    as a divergence, unless its potential had already risen above what the momentum can pay for: then it is a divergence, which came to that point
    by its own instability. To tell the two apart, transitions that ended at a bad point are run again with a recording potential.

    With a checkpoint, every `CHUNK` transitions are kept as they are made, and those that it holds are not made again. An interrupt (Ctrl-C) ends the
    chains after the transitions that are under way; the draws that all have are returned, and without any the interrupt is passed on.

    Raises
    ------
    FitError : when no starting point with a finite density is found for a chain.
    KeyboardInterrupt : when interrupted before there are enough draws.
    """
    widths = layout(num_chains)
    groups = len(widths)
    samplers = [
        compiled(
            model,
            f"nuts/{width}/{num_warmup}/{target_accept_prob}/{max_tree_depth}",
            lambda: _Sampler(model, num_warmup, target_accept_prob, max_tree_depth),
        )
        for width in widths
    ]
    pooled = centring(model)
    share = None if pooled is None else shares(model, mode)
    location, factor = (mode.location, mode.factor) if share is None else centred(model, mode, share)
    args: tuple = (model.data, jnp.asarray(location), jnp.asarray(factor))
    args += () if share is None else (jnp.asarray(share),)
    keys = jax.random.split(jax.random.key(seed), num_chains)
    centres = [
        location,
        *(other if pooled is None or share is None else pooled.back(jnp.asarray(other), args[3]) for other in mode.others),
    ]
    starts = jnp.stack([_start(model, args, key, np.asarray(centres[k % len(centres)])) for k, key in enumerate(keys)])
    parts_of = np.split(np.arange(num_chains), np.cumsum(widths)[:-1])
    states = [sampler.start(starts[part], keys[part], args) for sampler, part in zip(samplers, parts_of, strict=True)]
    if len(set(widths)) > 1:
        for sampler, state in zip(samplers, states, strict=True):
            # NumPyro's handlers belong to the process: two programs must not be traced in two threads at a time.
            sampler.run(state, 0, args)
    stop = threading.Event()

    with (
        bar((num_warmup + num_samples) * groups, "nuts", progress) as shown,
        concurrent.futures.ThreadPoolExecutor(groups) as pool,
    ):

        def run(group: int) -> _Chains:
            chains = _Chains(samplers[group], states[group], args, num_warmup)
            stage = f"nuts-{group}"
            if checkpoint is not None:
                for part in checkpoint.read(stage):
                    chains.take(part)
                    shown.update(chains.latest)
            for length in _lengths(num_warmup, num_samples)[len(chains.parts) :]:
                if stop.is_set():
                    break
                part = chains.go_on(length)
                if checkpoint is not None:
                    checkpoint.write(stage, len(chains.parts) - 1, part)
                shown.update(length)
            return chains

        running = []
        try:
            running = [pool.submit(run, group) for group in range(groups)]
            concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_EXCEPTION)
        except KeyboardInterrupt:
            log.warning("interrupted: the chains end after the transitions that are under way")
        finally:
            stop.set()  # where one has failed or was interrupted, the others need not go on
        every = [each.result() for each in running]
    count = min((chains.draws for chains in every), default=0)
    if not count:
        raise KeyboardInterrupt
    parts = [chains.kept(count) for chains in every]
    kept = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    adapted = jax.tree.map(lambda *parts: jnp.concatenate(parts), *(chains.state.adapt_state for chains in every))
    failed = _failed_solves(model, kept, adapted, args, max_tree_depth)
    x = kept["x"]
    flat = location + np.einsum("ij,cdj->cdi", factor, x)
    if pooled is not None:
        each = jax.vmap(jax.vmap(pooled.out, in_axes=(0, None)), in_axes=(0, None))
        out = compiled(model, "centring/out", lambda: jax.jit(each))
        flat, volume = (np.asarray(part) for part in out(jnp.asarray(flat), args[3]))
        kept["lp"] = kept["lp"] - volume  # the density of the model's own coordinates
    stats = {
        "diverging": kept["diverging"] & ~failed,
        "failed_solve": failed,
        "tree_depth": np.ceil(np.log2(kept["n_steps"] + 1)).astype(int),
        **{name: kept[name] for name in ("energy", "n_steps", "acceptance_rate", "lp", "step_size")},
    }
    side = " or ".join(map(str, sorted(set(widths))))
    method = f"{groups} thread{'s' if groups > 1 else ''}, {side} chain{'s' if max(widths) > 1 else ''} vectorised in each"
    told = {} if pooled is None or share is None else pooled.told(share)
    steps, bad = (sum(chains.in_warmup(name) for chains in every) for name in ("n_steps", "diverging"))
    return Draws(flat, stats, method, steps, bad, count < num_samples, told)


def _lengths(num_warmup: int, num_samples: int) -> list[int]:
    """Transitions per compiled call: warm-up first, and no call is of both."""
    return [min(CHUNK, count - done) for count in (num_warmup, num_samples) for done in range(0, count, CHUNK)]


class _Chains:
    """The chains of one thread: their state, and what is kept of every transition so far, warm-up included."""

    def __init__(self, sampler: "_Sampler", state: Any, args: tuple, num_warmup: int) -> None:
        self.sampler = sampler
        self.start = state
        self.state = state
        self.args = args
        self.num_warmup = num_warmup
        self.parts: list[dict[str, np.ndarray]] = []

    @property
    def latest(self) -> int:
        """Transitions of the last part."""
        return self.parts[-1]["x"].shape[1]

    @property
    def draws(self) -> int:
        """Transitions after warm-up."""
        return max(0, sum(part["x"].shape[1] for part in self.parts) - self.num_warmup)

    def in_warmup(self, name: str) -> int:
        """Sum of a figure over the chains' warm-up."""
        return int(self._all(name)[:, : self.num_warmup].sum())

    def go_on(self, length: int) -> dict[str, np.ndarray]:
        """Make transitions; what a checkpoint keeps of them."""
        self.state, kept = self.sampler.run(self.state, length, self.args)
        self.parts.append({name: np.asarray(x)[:, :length] for name, x in kept.items()})
        return self.parts[-1] | pack(self.state)

    def take(self, part: dict[str, np.ndarray]) -> None:
        """Transitions that a checkpoint has kept."""
        self.state = unpack(self.start, part)
        self.parts.append({name: x for name, x in part.items() if not name.startswith("leaf/")})

    def kept(self, count: int) -> dict[str, np.ndarray]:
        """Figures of the first `count` draws `(chain, draw, ...)`; under `before/` place and key that a transition set out from."""
        first, end = self.num_warmup, self.num_warmup + count
        begin = {"x": np.asarray(self.start.z)[:, None], "key": np.asarray(jax.random.key_data(self.start.rng_key))[:, None]}
        found = {name: self._all(name)[:, first:end] for name in self.parts[0]}
        for name, start in begin.items():
            found[f"before/{name}"] = np.concatenate([start, self._all(name)], axis=1)[:, first:end]
        return found

    def _all(self, name: str) -> np.ndarray:
        return np.concatenate([part[name] for part in self.parts], axis=1)


class _Sampler:
    """NumPyro's NUTS kernel for one model structure."""

    def __init__(self, model: ForwardModel, num_warmup: int, target_accept_prob: float, max_tree_depth: int) -> None:
        self._init, self._kernel = hmc(potential_fn_gen=_potential(model), algo="NUTS")
        self._settings = {
            "num_warmup": num_warmup,
            "step_size": 0.5,
            "target_accept_prob": target_accept_prob,
            "max_tree_depth": max_tree_depth,
        }
        self._start = jax.jit(
            jax.vmap(lambda x, key, args: self._init(x, rng_key=key, model_args=args, **self._settings), in_axes=(0, 0, None))
        )
        self.run = jax.jit(self._run)

    def start(self, x: Array, keys: Array, args: tuple) -> Any:
        """State of the chains at `x (width, size)`."""
        return self._start(x, keys, args)

    def _run(self, states: Any, length: int, args: tuple) -> tuple[Any, dict[str, Array]]:
        """Advance by `length <= CHUNK` draws; what is kept of them has a draw axis of `CHUNK`."""

        def keep(state: Any) -> dict[str, Array]:
            return {
                "x": state.z,
                "key": jax.random.key_data(state.rng_key),
                "diverging": state.diverging,
                "energy": state.energy,
                "n_steps": state.num_steps,
                "acceptance_rate": state.accept_prob,
                "lp": -state.potential_energy,
                "step_size": state.adapt_state.step_size,
            }

        def one(state: Any) -> tuple[Any, dict[str, Array]]:
            empty = jax.tree.map(lambda x: jnp.zeros((CHUNK, *jnp.shape(x)), jnp.result_type(x)), keep(state))

            def step(i: Array, carry: tuple) -> tuple:
                state, kept = carry
                state = self._kernel(state, model_args=args)
                return state, jax.tree.map(lambda all_, x: all_.at[i].set(x), kept, keep(state))

            return lax.fori_loop(0, length, step, (state, empty))

        return jax.vmap(one)(states)


def _potential(model: ForwardModel) -> Any:
    """Function from the sampler's arguments - data, location and factor of its coordinates, how far deviations are centred - to its potential."""
    space, pooled = coordinates(model), centring(model)

    def potential(data: Any, location: Array, factor: Array, share: Array | None = None) -> Any:
        def height(x: Array) -> Array:
            if pooled is None or share is None:
                return space.potential(location + factor @ x, data)
            flat, volume = pooled.out(location + factor @ x, share)
            return space.potential(flat, data) - volume

        return height

    return potential


def _start(model: ForwardModel, args: tuple, key: Array, centre: np.ndarray) -> Array:
    """A Laplace draw around a mode, pulled towards it until its density is finite; in the sampler's coordinates, which are about the best mode."""
    height, pooled = potential(model), centring(model)
    data, location, factor = (np.asarray(part) if k else part for k, part in enumerate(args[:3]))
    middle = np.linalg.solve(factor, centre - location) if np.any(centre != location) else np.zeros(location.shape)
    away = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), location.shape))
    for _ in range(12):
        flat = jnp.asarray(location + factor @ (middle + away))
        if pooled is not None:
            flat, _ = pooled.out(flat, args[3])
        if np.isfinite(float(height(flat, data))):
            return jnp.asarray(middle + away)
        away = 0.5 * away
    raise FitError(
        "No starting point with a finite density was found near the mode; the mode lies at the edge of what can be solved."
    )


RARELY = 0.999
"""Share of momenta that a trajectory is held against when its potential is said to have risen by more than the momentum can pay for."""

ENERGY = 10.0
"""Error of the energy beyond that. Leapfrog steps at a usual acceptance are off by less than one; NumPyro calls 1,000 a divergence."""


def _failed_solves(
    model: ForwardModel, kept: dict[str, np.ndarray], adapted: Any, args: tuple, max_tree_depth: int
) -> np.ndarray:
    """Which transitions ended because an equilibrium was not found, `(chain, draw)` boolean.

    NUTS stops a trajectory at its first bad point and calls it a divergence whatever the reason. A transition is a deterministic function of the
    state before it and its key, so the few that ended so are run again with a potential that tells the host its values. Where energy is kept the
    potential rises by no more than the momentum's energy, half a chi-square; a trajectory on which it rose by more had diverged before it came to the
    point without an equilibrium.
    """
    failed = np.zeros(kept["diverging"].shape, bool)
    places = np.argwhere(kept["diverging"])
    if not len(places):
        return failed
    seen: list[float] = []

    def potential(*args: Any) -> Any:
        height = _potential(model)(*args)

        def recorded(x: Array) -> Array:
            value = height(x)
            io_callback(lambda height: seen.append(float(height)), None, lax.stop_gradient(value), ordered=False)
            return value

        return recorded

    init, kernel = hmc(potential_fn_gen=potential, algo="NUTS")
    first = tuple(places[0])
    begin = init(
        jnp.asarray(kept["before/x"][first]),
        num_warmup=0,
        step_size=1.0,
        adapt_step_size=False,
        adapt_mass_matrix=False,
        max_tree_depth=max_tree_depth,
        model_args=args,
        rng_key=jax.random.key(0),
    )
    value_and_grad = jax.jit(jax.value_and_grad(potential(*args)))
    again = jax.jit(lambda state: kernel(state, model_args=args))
    allowed = 0.5 * chi2.ppf(RARELY, begin.z.size) + ENERGY
    for place in map(tuple, places):
        x = jnp.asarray(kept["before/x"][place])
        value, gradient = value_and_grad(x)
        adapt = jax.tree.map(lambda x, chain=place[0]: x[chain], adapted)
        key = jax.random.wrap_key_data(jnp.asarray(kept["before/key"][place]))
        state = begin._replace(z=x, z_grad=gradient, potential_energy=value, adapt_state=adapt, rng_key=key)
        seen.clear()
        jax.block_until_ready(again(state).z)
        jax.effects_barrier()
        heights = np.array(seen)
        off = np.nanmax(np.append(heights, value)) - float(value) > allowed
        failed[place] = np.isnan(heights).any() and not off
    return failed
