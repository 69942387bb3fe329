"""Work shared between processes: a pool whose workers keep out of each other's way, and models that travel to them once."""

import concurrent.futures
import hashlib
import multiprocessing
import multiprocessing.reduction
import os
import platform
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel, describe

from .checkpoint import digest
from .worker import begin

SETTINGS = (
    "jax_enable_x64",
    "jax_platforms",
    "jax_default_matmul_precision",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
    "jax_threefry_partitionable",
    "jax_default_prng_impl",
)
"""Settings of JAX that a worker takes over from the process that makes it."""


def cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def processor() -> str:
    """What compiled programs depend on of the processor, its model and its instructions: rounding differs between kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    known = dict(line.split(":", 1) for line in lines if ":" in line)
    told = {name.strip(): value.strip() for name, value in known.items()}
    return " ".join([told.get("model name", platform.processor()), digest(told.get("flags", told.get("Features", "")))[:12]])


def processes(workers: int | None = None) -> concurrent.futures.ProcessPoolExecutor:
    """A pool of processes for `check`, each of which keeps to cores of its own: JAX's threads in several processes else wait for one another.

    Only Linux lets a process choose its cores; elsewhere give fewer workers than there are cores.

    Parameters
    ----------
    workers : number of processes; by default one per core.

    Returns
    -------
    ProcessPoolExecutor
        New interpreters (JAX does not survive a fork); a script that makes one needs its `if __name__ == "__main__":`.

    Raises
    ------
    InputError : for a number of workers that is no positive whole number.
    """
    available = cores()
    count = len(available) if workers is None else workers
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InputError(f"processes: workers is {workers!r}; a positive whole number is needed.")
    context = multiprocessing.get_context("spawn")
    seats = context.SimpleQueue()
    for k in range(count):
        mine = available[k * len(available) // count : (k + 1) * len(available) // count]
        seats.put(mine or [available[k % len(available)]])
    settings = {name: getattr(jax.config, name) for name in SETTINGS if hasattr(jax.config, name)}
    return concurrent.futures.ProcessPoolExecutor(count, mp_context=context, initializer=begin, initargs=(seats, settings))


class Parcel:
    """A model on its way to workers, each of which makes and compiles it once.

    Parameters
    ----------
    model : the model.
    """

    def __init__(self, model: ForwardModel) -> None:
        self.model = model
        self.name = uuid.uuid4().hex
        self.about = (str(jnp.zeros(()).dtype), fingerprint(model))

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.name, self.about, *self.model.__reduce__())


def travels(*things: Any) -> None:
    """Refuse what cannot be sent to other processes.

    Raises
    ------
    InputError : where a piece - a game, a prior, a sampler - is defined inside a function.
    """
    try:
        multiprocessing.reduction.ForkingPickler.dumps(things)
    except Exception as error:  # of whatever kind the piece that cannot travel raises
        raise InputError(f"This cannot be sent to other processes ({error}); define its pieces in a module.") from error


_opened: dict[str, Parcel] = {}


ONE_AT_A_TIME = threading.RLock()
"""Held while a worker works: NumPyro's stack of handlers belongs to the process, and tracing in two threads would mix them up."""


def fingerprint(model: ForwardModel) -> str:
    """What tells models apart, in words and numbers: games, paths, observation, starts, solver, clock, data."""
    words = {**describe(model), "solver": model.solver}
    return hashlib.sha256(f"{words}{digest((model.grid.fine_times, model.data))}".encode()).hexdigest()


def _arrived(name: str, about: tuple[str, str], make: Callable[..., ForwardModel], made_from: tuple[Any, ...]) -> Parcel:
    """The parcel in a worker, opened when it comes for the first time.

    Raises
    ------
    InputError : when this worker computes in another precision than the sender, or the model is not the one that was sent.
    """
    with ONE_AT_A_TIME:
        if name not in _opened:
            mine = str(jnp.zeros(()).dtype)
            if mine != about[0]:
                raise InputError(f"A worker computes in {mine}, the check in {about[0]}; set JAX_ENABLE_X64 alike for both.")
            parcel = Parcel(make(*made_from))
            if parcel.about != about:
                raise InputError(
                    "The model that arrived at a worker is not the one that was sent; were the arguments that it was made of changed since?"
                )
            _opened.clear()  # compiled programs are large: of one model at a time
            _opened[name] = parcel
        return _opened[name]
