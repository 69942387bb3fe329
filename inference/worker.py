"""What the processes of `bayes_mfg.inference.processes` do before their first task; they are the package's own, and so is their JAX."""

import os
from collections.abc import Mapping
from typing import Any

import jax


def begin(seats: Any, settings: Mapping[str, Any]) -> None:
    """Keep to the next free cores, before JAX starts its threads, and take over the settings of the JAX that made this process.

    Parameters
    ----------
    seats : queue of lists of core numbers.
    settings : name in `jax.config` -> value.
    """
    mine = seats.get()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, mine)
    for name, value in settings.items():
        jax.config.update(name, value)
