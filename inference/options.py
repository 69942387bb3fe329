"""Checks of the options of `fit`, before anything is compiled."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayes_mfg.errors import InputError

LEAST = {
    "seed": 0,
    "prior_samples": 0,
    "num_chains": 1,
    "num_warmup": 0,
    "num_samples": 1,
    "max_tree_depth": 1,
    "members": 2,
    "starts": 0,
    "screened": 0,
    "max_steps": 1,
    "num_steps": 1,
    "num_particles": 1,
    "seeds": 1,
    "epochs": 1,
    "batch": 1,
    "patience": 1,
}
"""Whole numbers and the least that each may be."""

MOST = {"target_accept_prob": 1.0, "window": 1.0, "learning_rate": np.inf}
"""Positive numbers and the most that each may be."""


def whole(value: Any) -> bool:
    """Whether a value is a whole number, and not True or False."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


LARGEST = 10**7
"""Beyond this a whole number is a slip."""


def check(options: Mapping[str, Any]) -> None:
    """Refuse options of `fit` that are out of range; names that are not known here are left to the methods.

    Raises
    ------
    InputError : for the first that is.
    """
    for name, value in options.items():
        if name in ("patience", "tolerance") and value is None:
            continue
        if name == "held_out" and not (
            isinstance(value, int | float | np.number) and not isinstance(value, bool) and 0 <= value < 1
        ):
            raise InputError(f"fit: held_out is {value!r}; a number of at least 0 and below 1 is needed.")
        if name == "tolerance" and not (
            isinstance(value, int | float | np.number) and not isinstance(value, bool) and 0 <= value < np.inf
        ):
            raise InputError(f"fit: tolerance is {value!r}; a number of at least 0 is needed.")
        if name in LEAST and not (whole(value) and value >= LEAST[name]):
            raise InputError(f"fit: {name} is {value!r}; a whole number of at least {LEAST[name]} is needed.")
        most = 2**32 if name == "seed" else LARGEST
        if name in LEAST and value > most:
            raise InputError(f"fit: {name} is {value!r}; at most {most} is allowed.")
        if name in MOST and not (
            isinstance(value, int | float | np.number) and not isinstance(value, bool) and 0 < value <= MOST[name]
        ):
            limit = "" if MOST[name] == np.inf else f" up to {MOST[name]:g}"
            raise InputError(f"fit: {name} is {value!r}; a positive number{limit} is needed.")
