"""Whether a table holds trips twice, or two tables the same ones, from a small sample of each that is drawn by the trips themselves."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_mfg.errors import DataError

SAMPLE = 1 << 14
"""Trips of a table that are kept to compare it with others: those with the smallest fingerprints, which are the same ones in every table."""

COMMON = 0.1
"""Part of a table that it may repeat, or of the smaller table that another may have, too: friends who ride together, times in minutes, or the hours
where two months meet."""

FEW = 20
"""Rows that a table may repeat whatever their part of it."""


@dataclasses.dataclass(frozen=True)
class Shared:
    """How many of the `compared` trips of a table it has twice, or of the smaller of two tables the other one has, too."""

    shared: int
    compared: int


class Sample:
    """The distinct trips of a table with the smallest fingerprints, at most `SAMPLE` of them.

    A table's smallest fingerprints up to any bound are a sample of it, and up to one bound those of two tables are samples of the same trips.
    """

    def __init__(self) -> None:
        self._kept = np.zeros(0, np.uint64)
        self._times = np.zeros(0, np.int64)
        self._bound = np.uint64(2**64 - 1)
        self._new: list[NDArray[np.uint64]] = []
        self._waiting = 0
        self._first, self._last = 2**32, -1

    def add(self, records: NDArray[Any]) -> None:
        """Take in trips, records of 16 bytes with a start in seconds."""
        self._first = min(self._first, int(records["start"].min()))
        self._last = max(self._last, int(records["start"].max()))
        marks = _fingerprints(records)
        marks = marks[marks <= self._bound]
        self._new.append(marks)
        self._waiting += marks.size
        if self._waiting > SAMPLE:
            self._sort()

    def shared(self, other: "Sample") -> Shared:
        """With another table, over the fingerprints up to the lower of the two bounds."""
        if self._first > other._last or other._first > self._last:
            return Shared(0, 0)  # most months and days: spares the sorting
        self._sort()
        other._sort()
        bound = min(self._bound, other._bound)
        mine, theirs = (one._kept[one._kept <= bound] for one in (self, other))
        return Shared(int(np.intersect1d(mine, theirs, assume_unique=True).size), min(mine.size, theirs.size))

    @property
    def repeated(self) -> Shared:
        """How many of the rows of the sample repeat an earlier one."""
        self._sort()
        rows = int(self._times.sum())
        return Shared(rows - self._kept.size, rows)

    def _sort(self) -> None:
        if self._waiting:
            marks = np.concatenate([self._kept, *self._new])
            times = np.concatenate([self._times, np.ones(marks.size - self._kept.size, np.int64)])
            found, place = np.unique(marks, return_inverse=True)
            self._times = np.bincount(place, times, found.size).astype(np.int64)[:SAMPLE]
            self._kept, self._new, self._waiting = found[:SAMPLE].copy(), [], 0
            if found.size > SAMPLE:
                self._bound = self._kept[-1]


class Overlap:
    """Samples of the tables read so far."""

    def __init__(self) -> None:
        self._earlier: dict[str, Sample] = {}
        self._now = Sample()

    def add(self, records: NDArray[Any]) -> None:
        """Take in trips of the table that is being read."""
        self._now.add(records)

    def close(self, name: str) -> tuple[int, int]:
        """End a table, and compare it with itself and with those before it.

        Returns
        -------
        Rows of the sample that repeat an earlier one, and trips of the sample that a table before has, too.

        Raises
        ------
        DataError
            Where more than the part `COMMON` of it repeats, or is in one of them: trips would be counted twice.
        """
        most, own = 0, self._now.repeated
        if own.shared > max(FEW, COMMON * own.compared):
            raise DataError(
                f"{name}: {own.shared} of {own.compared} trips that were compared repeat an earlier one, with the same places and seconds,"
                " and are not to be counted twice; expected each trip once (was a table appended to itself?)."
            )
        for other, sample in self._earlier.items():
            found = self._now.shared(sample)
            if found.shared > COMMON * found.compared:
                raise DataError(
                    f"{name}: {found.shared} of {found.compared} trips that were compared are in {other}, too, with the same places and seconds,"
                    " and are not to be counted twice; expected each trip in one table (is one of them a part of the other?)."
                )
            most = max(most, found.shared)
        self._earlier[name] = self._now
        self._now = Sample()
        return own.shared, most


def _fingerprints(records: NDArray[Any]) -> NDArray[np.uint64]:
    """64 bits of each record of 16 bytes, which look random and are the same for the same record."""
    words = records.view(np.uint64).reshape(-1, 2)
    return _mixed(_mixed(words[:, 0]) ^ words[:, 1])


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))
