"""Trips of any size, read once: four numbers a trip in a temporary file, and what is known of the places in memory."""

import dataclasses
import datetime
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayes_mfg.errors import DataError

from .arrow import batches
from .days import DAY, EPOCH, Days, clock_change
from .overlap import Overlap

RECORD = np.dtype([("start", "<u4"), ("end", "<u4"), ("origin", "<i4"), ("destination", "<i4")])
"""Seconds since 1970 on local clocks, and numbers of places."""
CHUNK = 1 << 20
ROLES = ("start_time", "end_time", "start_place", "end_place")
_SIDES = ("start", "end")


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of a table's columns; coordinates and second names of places are optional. With `utc` the times are UTC, else local."""

    start_time: str
    start_place: str
    end_time: str
    end_place: str
    start_latitude: str | None = None
    start_longitude: str | None = None
    end_latitude: str | None = None
    end_longitude: str | None = None
    start_alias: str | None = None
    end_alias: str | None = None
    utc: bool = False

    def kinds(self) -> dict[str, str]:
        """Columns to read, and what they hold."""
        kinds = {
            "utc" if self.utc else "time": (self.start_time, self.end_time),
            "text": (self.start_place, self.end_place, self.start_alias, self.end_alias),
            "number": (self.start_latitude, self.start_longitude, self.end_latitude, self.end_longitude),
        }
        return {name: kind for kind, names in kinds.items() for name in names if name is not None}


@contextmanager
def _disk_told() -> Iterator[None]:
    """Turns what a full disk raises into a `DataError` that says where the disk is."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The folder for temporary files, {tempfile.gettempdir()}, does not take the trips ({error.strerror or error}); expected room for 16"
            " bytes a trip (the environment variable TMPDIR names another folder)."
        ) from None


class TripLog:
    """Trips as records in a temporary file, which goes when the log is closed.

    Attributes
    ----------
    places : keys of the places in order of appearance.
    use : (places,) starts and ends of sound trips.
    aliases : for each place, its second names (a station's ids, or an id's names) in order of appearance.
    rows : file -> rows read.
    dropped : reason -> rows.
    repairs : repair -> rows or names.
    span : seconds of the first and the last start.
    by_hour : (24,) starts by hour of the local day.
    """

    def __init__(self) -> None:
        self.places: list[str] = []
        self.aliases: list[list[str]] = []
        self.use = np.zeros(0, np.int64)
        self.rows: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.repairs: Counter[str] = Counter()
        self.span: tuple[int, int] | None = None
        self.by_hour = np.zeros(24, np.int64)
        self._number: dict[str, int] = {}
        self._spelling: dict[str, int] = {}
        self._sums = np.zeros((0, 3))
        self._last_alias = np.zeros(0, np.int64)
        self._alias_number: dict[str, int] = {}
        self._alias_spelling: dict[str, int] = {}
        self._seen: set[tuple[int, int]] = set()
        self._in_file: set[int] = set()
        self._earlier: set[int] = set()
        self._overlap = Overlap()
        self._file = ""
        self._clocks: dict[str, tuple[int, bool]] = {}
        with _disk_told():
            self._store = tempfile.TemporaryFile(prefix="bayes-mfg-trips-")  # noqa: SIM115 - closed with the log
        self._changes: dict[int, int] = {}

    def __enter__(self) -> "TripLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    @property
    def n_read(self) -> int:
        """Rows read."""
        return sum(self.rows.values())

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """Mean latitude and longitude of each place (places, 2), NaN where unknown."""
        with np.errstate(invalid="ignore"):
            return self._sums[:, :2] / np.where(self._sums[:, 2:] > 0, self._sums[:, 2:], np.nan)

    def records(self) -> Iterator[NDArray[Any]]:
        """The trips in pieces."""
        self._store.seek(0)
        while content := self._store.read(CHUNK * RECORD.itemsize):
            yield np.frombuffer(content, RECORD)

    def add(self, name: str, batch: Any, columns: Columns, days: Days) -> None:
        """Take in a batch of rows."""
        if name != self._file:
            self.close_file()
            self._file = name
        n = batch.num_rows
        self.rows[name] += n
        times = [_nanoseconds(batch.column(getattr(columns, f"{side}_time"))) for side in _SIDES]
        codes = [self._codes(batch.column(getattr(columns, f"{side}_place"))) for side in _SIDES]
        for side, time in zip(_SIDES, times, strict=True):
            dated = time[time != np.iinfo(np.int64).min]
            count, clocked = self._clocks.get(label := getattr(columns, f"{side}_time"), (0, False))
            self._clocks[label] = count + dated.size, clocked or bool((dated % (DAY * 10**9)).any())
        no_time = [time == np.iinfo(np.int64).min for time in times]
        sound = np.ones(n, bool)

        def drop(reason: str, bad: NDArray[np.bool_]) -> None:
            nonlocal sound
            count = int(np.count_nonzero(sound & bad))
            if count:
                self.dropped[reason] += count
                sound = sound & ~bad

        drop("no start time", no_time[0])
        drop("no start place", codes[0] < 0)
        drop("no end time", no_time[1])
        drop("no end place", codes[1] < 0)
        start, end = (np.where(none, 0, time) for time, none in zip(times, no_time, strict=True))
        backwards = sound & (end < start)
        if backwards.any():
            back = self._clock_put_back(start, end, backwards, None if columns.utc else days.time_zone)
            self._put_at_start(int(back.sum()))
            end = np.where(back, start, end)
            drop("ends before it starts", backwards & ~back)
        drop(f"longer than {days.longest:g} hours", end - start > days.longest * 3600 * 10**9)
        if columns.utc:
            assert days.time_zone is not None
            start, end = _local(start, days.time_zone), _local(end, days.time_zone)
            early = sound & (end < start)
            self._put_at_start(int(early.sum()))
            end = np.maximum(start, end)
        self._locate(batch, columns, codes, sound)
        if not sound.any():
            return
        seconds = [time[sound] // 10**9 for time in (start, end)]
        first, last = int(seconds[0].min()), int(seconds[1].max())
        if first < 0 or last >= 2**32 - DAY:
            bad = first if first < 0 else last
            raise DataError(
                f"{name}: a trip is dated {EPOCH + datetime.timedelta(days=bad // DAY)}; expected dates from 1970 to 2105."
            )
        latest = int(seconds[0].max())
        self.span = (first, latest) if self.span is None else (min(first, self.span[0]), max(latest, self.span[1]))
        records = np.empty(int(sound.sum()), RECORD)
        records["start"], records["end"] = seconds
        records["origin"], records["destination"] = codes[0][sound], codes[1][sound]
        size = len(self.places)
        for code in ("origin", "destination"):
            self.use[:size] += np.bincount(records[code], minlength=size)
        self.by_hour += np.bincount(seconds[0] % DAY // 3600, minlength=24)
        self._overlap.add(records)
        with _disk_told():
            self._store.write(records.tobytes())
            self._store.flush()

    def close_file(self) -> None:
        """Look at a file that was read, and compare it with those before it.

        Raises
        ------
        DataError
            Where the two have no place in common or many trips, it has many trips twice, or every time of a column is midnight.
        """
        if not self._file:
            return
        for column, (count, clocked) in self._clocks.items():
            if count > 1 and not clocked:
                raise DataError(
                    f"{self._file}, column {column!r}: all {count} times are midnight; expected times of day, which a spreadsheet may have"
                    " dropped."
                )
        self._clocks = {}
        mine = self._in_file
        if mine and self._earlier and not mine & self._earlier:
            raise DataError(
                f"{self._file}: none of its {len(mine)} places, such as {self.places[min(mine)]!r}, is in the files before it;"
                " expected files of one city."
            )
        self._earlier |= mine
        self._in_file = set()
        repeated, common = self._overlap.close(self._file)
        if repeated:
            self.repairs["more than once in one table, with the same places and seconds: all kept (trips of a sample)"] += (
                repeated
            )
        if common:
            self.repairs["in an earlier table, too, with the same places and seconds: both kept (trips of a sample)"] += common

    def _codes(self, column: Any) -> NDArray[np.int64]:
        """Numbers of the places in a dictionary column, -1 where there is none."""
        names = column.dictionary.to_pylist()
        lookup = np.full(len(names) + 1, -1, np.int64)
        for index, name in enumerate(names):
            code = self._spelling.get(name)
            lookup[index] = self._new(name) if code is None else code
        indices = column.indices
        if indices.null_count:
            indices = indices.fill_null(len(names))
        codes = lookup[indices.to_numpy(zero_copy_only=False)]
        self._in_file.update(lookup[lookup >= 0].tolist())
        return codes

    def _new(self, spelling: str) -> int:
        name = " ".join(spelling.split())
        if not name:
            code = -1
        elif name in self._number:
            code = self._number[name]
        else:
            code = self._number[name] = len(self.places)
            self.places.append(name)
            self.aliases.append([])
            if len(self.places) > self.use.size:
                more = 2 * len(self.places) + 64 - self.use.size
                self.use = np.append(self.use, np.zeros(more, np.int64))
                self._sums = np.append(self._sums, np.zeros((more, 3)), axis=0)
                self._last_alias = np.append(self._last_alias, np.full(more, -1))
        if name != spelling and name:
            self.repairs["names of places with blanks to spare (spellings, not rows)"] += 1
        self._spelling[spelling] = code
        return code

    def _locate(self, batch: Any, columns: Columns, codes: Sequence[NDArray[np.int64]], sound: NDArray[np.bool_]) -> None:
        """Add up coordinates and note second names of places."""
        size = len(self.places)
        for side, code in zip(_SIDES, codes, strict=True):
            latitude, longitude = (getattr(columns, f"{side}_{axis}") for axis in ("latitude", "longitude"))
            if latitude is not None and longitude is not None:
                where = [batch.column(name).to_numpy(zero_copy_only=False) for name in (latitude, longitude)]
                # 0, 0 lies in the sea south of Ghana: it stands for a position that was not fixed.
                known = sound & np.isfinite(where[0]) & np.isfinite(where[1]) & ((where[0] != 0) | (where[1] != 0))
                out = known & ((abs(where[0]) > 90) | (abs(where[1]) > 180))
                if out.any():
                    row = int(np.argmax(out))
                    axis = 0 if abs(where[0][row]) > 90 else 1
                    raise DataError(
                        f"{self._file}, column {(latitude, longitude)[axis]!r}: {where[axis][row]:g}; expected degrees,"
                        f" -{90 + 90 * axis} to {90 + 90 * axis}."
                    )
                chosen = code[known]
                for axis in (0, 1):
                    self._sums[:size, axis] += np.bincount(chosen, where[axis][known], size)
                self._sums[:size, 2] += np.bincount(chosen, minlength=size)
            alias = getattr(columns, f"{side}_alias")
            if alias is not None:
                self._note_aliases(batch.column(alias), code)

    def _note_aliases(self, column: Any, codes: NDArray[np.int64]) -> None:
        names = column.dictionary.to_pylist()
        numbers = [self._alias_spelling[name] if name in self._alias_spelling else self._new_alias(name) for name in names]
        lookup = np.array([*numbers, -1], np.int64)
        indices = column.indices.fill_null(len(names)) if column.indices.null_count else column.indices
        found = lookup[indices.to_numpy(zero_copy_only=False)]
        if not self.places:
            return
        new = (codes >= 0) & (found >= 0) & (found != self._last_alias[codes])
        if not new.any():
            return
        texts = list(self._alias_number)
        for code, number in np.unique(np.stack([codes[new], found[new]]), axis=1).T.tolist():
            self._last_alias[code] = number
            if (code, number) not in self._seen:
                self._seen.add((code, number))
                self.aliases[code].append(texts[number])

    def _new_alias(self, spelling: str) -> int:
        number = self._alias_number.setdefault(" ".join(spelling.split()), len(self._alias_number))
        self._alias_spelling[spelling] = number
        return number

    def _put_at_start(self, count: int) -> None:
        if count:
            self.repairs["ended before it started because clocks went back: end booked at the start (rows)"] += count

    def _clock_put_back(
        self, start: NDArray[np.int64], end: NDArray[np.int64], rows: NDArray[np.bool_], time_zone: str | None
    ) -> NDArray[np.bool_]:
        """Trips that took no less than no time, as they start and end in the hour that clocks on the wall showed twice."""
        back = np.zeros(rows.size, bool)
        if time_zone is None:
            return back
        dates = end // (DAY * 10**9)
        for day in np.unique(dates[rows]).tolist():
            if day not in self._changes:
                self._changes[day] = clock_change(EPOCH + datetime.timedelta(days=day), time_zone)
            change = self._changes[day]
            if change < 0:
                back |= rows & (dates == day) & (end - change * 10**9 >= start)
        if back.any():
            for moments in (start, end):
                back[back] = _shown_twice(moments[back], time_zone)
        return back


def read_log(
    path: Any,
    choose: Callable[[str, Sequence[str]], Columns],
    days: Days,
    reader: str,
    time_formats: Sequence[str] = (),
    progress: bool | None = None,
) -> TripLog:
    """The trips of all files; the columns of each file are chosen by its header.

    Raises
    ------
    DataError
        See `batches` and `TripLog`; also where no row is sound.
    """
    if not isinstance(days, Days):
        raise DataError(f"{reader}: days is {days!r}; expected bm.data.Days(...).")
    chosen: dict[str, Columns] = {}

    def wanted(name: str, header: Sequence[str]) -> Mapping[str, str]:
        chosen[name] = choose(name, header)
        return chosen[name].kinds()

    log = TripLog()
    try:
        for name, batch in batches(path, wanted, reader, time_formats, progress):
            log.add(name, batch, chosen[name], days)
        log.close_file()
        if log.span is None:
            reasons = "; ".join(f"{reason}: {count}" for reason, count in log.dropped.items())
            raise DataError(f"{reader}: none of the {log.n_read} rows is a trip ({reasons}); expected at least one.")
    except BaseException:
        log.__exit__()
        raise
    return log


def _nanoseconds(column: Any) -> NDArray[np.int64]:
    """Nanoseconds since 1970, the smallest integer where there is no time."""
    return np.asarray(column.to_numpy(zero_copy_only=False)).astype("datetime64[ns]").view(np.int64)


def _shown_twice(nanoseconds: NDArray[np.int64], time_zone: str) -> NDArray[np.bool_]:
    """Whether clocks on the wall showed a time twice."""
    moments = pd.DatetimeIndex(nanoseconds.view("datetime64[ns]"))
    return np.asarray(moments.tz_localize(time_zone, ambiguous="NaT", nonexistent="shift_forward").isna())


def _local(nanoseconds: NDArray[np.int64], time_zone: str) -> NDArray[np.int64]:
    """What clocks on the wall showed at a time of UTC."""
    moments = pd.DatetimeIndex(nanoseconds.view("datetime64[ns]"), tz="UTC").tz_convert(time_zone).tz_localize(None)
    return np.asarray(moments.to_numpy().astype("datetime64[ns]").view(np.int64))
