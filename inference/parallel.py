"""Work shared between processes: a pool whose workers keep out of each other's way, and models that travel to them once."""

import concurrent.futures
import hashlib
import multiprocessing
import os
import pickle
from typing import Any

import jax

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel

SETTINGS = (
    "jax_enable_x64",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
    "jax_threefry_partitionable",
    "jax_default_prng_impl",
)
"""What a worker's JAX has to have as the caller's."""


def cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def processes(workers: int | None = None) -> concurrent.futures.ProcessPoolExecutor:
    """A pool of processes for `check`, each of which keeps to cores of its own: JAX's threads in several processes else wait for one another.

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
    return concurrent.futures.ProcessPoolExecutor(count, mp_context=context, initializer=_sit, initargs=(seats,))


def _sit(seats: Any) -> None:
    """Keep to the next free cores, before JAX starts its threads."""
    mine = seats.get()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, mine)


class Parcel:
    """A model on its way to workers, with the caller's JAX settings; each worker opens it once.

    Parameters
    ----------
    model : the model; its pieces must be such that `pickle` takes them (games and priors defined in a module, not inside a function).

    Raises
    ------
    InputError : when they are not.
    """

    def __init__(self, model: ForwardModel) -> None:
        try:
            self.content = pickle.dumps(model)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InputError(f"The model cannot be sent to other processes ({error}); define its pieces in a module.") from error
        self.name = hashlib.sha256(self.content).hexdigest()
        self.process = os.getpid()
        self.settings = {name: getattr(jax.config, name) for name in SETTINGS if hasattr(jax.config, name)}

    def open(self) -> ForwardModel:
        """The model, with what has been compiled for it in this process."""
        if os.getpid() != self.process:
            for name, value in self.settings.items():
                if getattr(jax.config, name) != value:
                    jax.config.update(name, value)
        if self.name not in _opened:
            _opened.clear()  # compiled programs are large: of one model at a time
            _opened[self.name] = pickle.loads(self.content)
        return _opened[self.name]


_opened: dict[str, ForwardModel] = {}
