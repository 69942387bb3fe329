"""Numbers, names and lists of names as messages show them."""

import datetime
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bayes_mfg.errors import DataError


def shown(number: float) -> str:
    """A number as a person would write it: every digit that matters, and no ".0"."""
    return repr(float(number)).removesuffix(".0")


def position(name: str, names: Sequence[str], noun: str, place: str) -> int:
    """Number of a name among `names`."""
    if name not in names:
        raise DataError(f"{place}: {noun} {name!r} is not known{closest(str(name), names)}; expected one of {listed(names)}.")
    return list(names).index(name)


def closest(name: str, names: Iterable[str]) -> str:
    """What may have been meant, in brackets; nothing where no name resembles it."""
    close = close_matches(name, names)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


def close_matches(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of `names` that resemble `name`, whatever the case of the letters."""
    folded = {item.casefold(): item for item in names}
    return [folded[item] for item in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)]


def listed(names: Iterable[str], limit: int = 12) -> str:
    """Names separated by commas, those after `limit` as a count."""
    items = list(names)
    shown = ", ".join(items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown


def number_of(count: int, singular: str, plural: str) -> str:
    """A count and its noun."""
    return f"{count} {singular if count == 1 else plural}"


def to_number(value: Any) -> float | None:
    """`value` as a float, or None where it is neither a number nor text that reads as one."""
    # Python reads "1_000" as a thousand; in a data file it is a mistake. NaT and dates are no numbers, though NumPy converts
    # them.
    if (
        isinstance(value, bool)
        or (isinstance(value, str) and "_" in value)
        or not isinstance(value, (str, int, float, np.number))
    ):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def if_a_date(value: Any) -> str:
    """What to do instead, where a value is a date."""
    date = isinstance(value, datetime.date | np.datetime64) or (isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value))
    return ", such as the days since the first date" if date else ""
