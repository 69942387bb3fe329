"""Tables as batches of Arrow columns: read piece by piece, so that a year of trips needs no more memory than a day of them."""

import csv
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pandas as pd

from bayes_mfg.errors import DataError

from .sources import Label, files_of, once, progress_bar, streams
from .wording import closest, listed

BLOCK = 16 << 20
MISSING = ("", "NULL", "\\N")
"""What stands for nothing in published tables of trips."""
_BAD_VALUE = re.compile(
    r"CSV column #(\d+): (?:Row #\d+: )?CSV conversion error to ([^:]*): ([^']*)(?:'(.*?)'(?:\. If these .*)?$)?", re.DOTALL
)
_EXPECTED = {
    "time": "a date with a local time, such as 2024-09-01 18:31:52",
    "utc": "a date with a time of UTC, such as 2024-09-01 18:31:52 or, then in the whole column, 2024-09-01T18:31:52Z",
    "number": "a number",
}
_ZONE = re.compile(r"[T ]\d.*(Z|[+-]\d\d(:?\d\d)?)$")
_LINES = 1000
"""Lines of a CSV file that are looked at to see whether its times of UTC say so."""
_BAD_ROW = re.compile(r"Expected (\d+) columns, got (\d+): ?(.*)", re.DOTALL)


def pyarrow(module: str = "pyarrow") -> Any:
    """A module of pyarrow, which is an optional extra.

    Raises
    ------
    DataError
        Where it is not installed; the sentence says what installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError('This file is read with pyarrow, which is not installed; pip install "bayes-mfg[arrow]".') from None


type Choose = Callable[[str, Sequence[str]], Mapping[str, str]]
"""From a file's name and its columns to the columns wanted: column of the file -> "time" (local), "utc", "text" or "number"."""


def batches(
    path: Any, choose: Choose, reader: str, time_formats: Sequence[str] = (), progress: bool | None = None
) -> Iterator[tuple[str, Any]]:
    """File name and a record batch of the chosen columns, times as timestamps without a zone, text as dictionaries; nothing is NULL but `MISSING`.

    Parameters
    ----------
    path : DataFrame, file, folder, or a list of files: CSV (plain, gzip, zip) or Parquet.
    choose : chooses the columns of each file.
    reader : name of the reader, for messages.
    time_formats : formats of times beside ISO 8601, as in `strptime`.
    progress : show a progress bar; by default on a terminal only.

    Raises
    ------
    DataError
        A file that is missing, damaged or no table, or a value that is no time or number; the sentence names file, column, value.
    """
    arrow = pyarrow()
    if isinstance(path, pd.DataFrame):
        labels = list(path.columns)
        wanted = choose("The table", [str(column) for column in labels])
        for column in wanted:
            if labels.count(column) != 1:
                raise DataError(
                    f"The table: column {column!r} occurs {labels.count(column)} times as text; expected it once (names of columns are text)."
                )
        yield from _converted("The table", _frame_batches(path, wanted), wanted, time_formats)
        return
    files = files_of(path, reader)
    with progress_bar(sum(file.stat().st_size for file in files), reader, progress) as bar:
        before, seen = 0, dict[str, Label]()
        for file in files:
            with file.open("rb") as raw:
                if raw.read(4) == b"PAR1":
                    raw.seek(0)
                    yield from _parquet(once(Label(file), seen), raw, choose, time_formats)
                else:
                    raw.seek(0)
                    for name, stream in streams(file, raw, seen):
                        for batch in _csv(name, stream, choose, time_formats, arrow):
                            bar.update(before + raw.tell() - bar.n)
                            yield name, batch
            before += file.stat().st_size
            bar.update(before - bar.n)


def _csv(name: str, stream: IO[bytes], choose: Choose, time_formats: Sequence[str], arrow: Any) -> Iterator[Any]:
    reader = pyarrow("pyarrow.csv")
    header = _header(name, stream)
    wanted = choose(name, header)
    for column in wanted:
        if header.count(column) > 1:
            raise DataError(f"{name}: column {column!r} occurs {header.count(column)} times; expected it once.")
    zoned = _zoned(stream, header, [column for column, kind in wanted.items() if kind == "utc"])
    kinds = {
        "time": arrow.timestamp("ns"),
        "utc": arrow.timestamp("ns"),
        "zoned": arrow.timestamp("ns", "UTC"),
        "text": arrow.dictionary(arrow.int32(), arrow.string()),
        "number": arrow.float64(),
    }
    # Columns by number, so that others may share a name.
    names = [column if column in wanted else f"\0{index}" for index, column in enumerate(header)]
    with _told(name, header, wanted):
        rows = reader.open_csv(
            stream,
            read_options=reader.ReadOptions(block_size=BLOCK, column_names=names),
            convert_options=reader.ConvertOptions(
                include_columns=list(wanted),
                column_types={column: kinds["zoned" if column in zoned else kind] for column, kind in wanted.items()},
                null_values=list(MISSING),
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
                timestamp_parsers=[reader.ISO8601, *time_formats],
            ),
        )
    while True:
        with _told(name, header, wanted):
            try:
                batch = rows.read_next_batch()
            except StopIteration:
                return
        yield batch.cast(arrow.schema([(column, kinds[kind]) for column, kind in wanted.items()])) if zoned else batch


def _zoned(stream: IO[bytes], header: Sequence[str], columns: Sequence[str]) -> set[str]:
    """Those of the columns whose first time has a zone, such as Z; the stream is left where it was."""
    found: set[str] = set()
    left = {column: header.index(column) for column in columns}
    begin = stream.tell()
    for _ in range(_LINES):
        line = stream.readline(1 << 20) if left else b""
        if not line:
            break
        try:
            cells = next(csv.reader([line.decode("utf-8").rstrip("\r\n")]), [])
        except (UnicodeDecodeError, csv.Error):
            continue  # told by what reads the file
        for column, index in list(left.items()):
            if index < len(cells) and cells[index] not in MISSING:
                del left[column]
                if _ZONE.search(cells[index].strip()):
                    found.add(column)
    stream.seek(begin)
    return found


def _header(name: str, stream: IO[bytes]) -> list[str]:
    line = stream.readline(1 << 20)
    try:
        text = line.decode("utf-8-sig")
        cells = next(csv.reader([text.rstrip("\r\n")]), [])
    except (UnicodeDecodeError, csv.Error):
        raise DataError(
            f"{name}: the file begins with {line[:40]!r}; expected a header line of comma-separated columns."
        ) from None
    header = [cell.strip() for cell in cells]
    if not any(header):
        raise DataError(f"{name}: the file is empty; expected a header line and one line for each row.")
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise DataError(f"{name}: the columns are separated by {word} ({text.strip()[:60]!r}); expected commas.")
    if not stream.peek(1):  # type: ignore[attr-defined]
        raise DataError(f"{name}: there is no line after the header; expected one line for each row.")
    return header


@contextmanager
def _told(name: str, header: Sequence[str], wanted: Mapping[str, str]) -> Iterator[None]:
    """Turns Arrow's errors into a `DataError` of one sentence."""
    lib = pyarrow("pyarrow.lib")
    try:
        yield
    except lib.ArrowInvalid as error:
        text = str(error)
        if found := _BAD_VALUE.search(text):
            number, _, what, value = found.groups()
            column = header[int(number)]
            expected = _EXPECTED.get(wanted.get(column, "text"), "text in UTF-8")
            raise DataError(
                f"{name}, column {column!r}: {what.strip() if value is None else repr(value)}; expected {expected}."
            ) from None
        if found := _BAD_ROW.search(text):
            wide, cells, row = found.groups()
            raise DataError(
                f"{name}: a line has {cells} cells ({row.strip()[:60]!r}); expected {wide}, as in the header (is the file whole?)."
            ) from None
        raise DataError(f"{name}: the file cannot be read ({' '.join(text.split())}); expected comma-separated values.") from None


def _frame_batches(table: pd.DataFrame, wanted: Mapping[str, str]) -> Iterator[Any]:
    arrow = pyarrow()
    try:
        yield from arrow.Table.from_pandas(table[list(wanted)], preserve_index=False).to_batches(max_chunksize=1 << 17)
    except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
        raise DataError(f"The table cannot be read ({error}); expected columns of one kind each.") from None


def _parquet(name: str, raw: IO[bytes], choose: Choose, time_formats: Sequence[str]) -> Iterator[tuple[str, Any]]:
    arrow, parquet = pyarrow(), pyarrow("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(raw)
        wanted = choose(name, file.schema_arrow.names)
        yield from _converted(name, file.iter_batches(1 << 17, columns=list(wanted)), wanted, time_formats)
    except (arrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{name}: the Parquet file is damaged or cut short ({error}); expected a whole file.") from None


def _converted(
    name: str, pieces: Iterator[Any], wanted: Mapping[str, str], time_formats: Sequence[str]
) -> Iterator[tuple[str, Any]]:
    """Batches of columns that have kinds of their own already."""
    arrow = pyarrow()
    for piece in pieces:
        columns = [_column(name, piece.column(column), column, kind, time_formats) for column, kind in wanted.items()]
        yield name, arrow.record_batch(columns, names=list(wanted))


def _column(name: str, column: Any, label: str, kind: str, time_formats: Sequence[str]) -> Any:
    arrow, compute = pyarrow(), pyarrow("pyarrow.compute")
    types = arrow.types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind == "text":
        if not (types.is_string(column.type) or types.is_large_string(column.type) or types.is_integer(column.type)):
            raise DataError(f"{name}, column {label!r} holds {column.type}; expected text or whole numbers.")
        return compute.dictionary_encode(_without_missing(compute.cast(column, arrow.string())))
    naive = arrow.timestamp("ns")
    if kind in ("time", "utc") and types.is_timestamp(column.type):
        if kind == "time" and column.type.tz is not None:
            raise DataError(
                f"{name}, column {label!r} carries the time zone {column.type.tz}; expected local times without a zone, as clocks"
                " on the wall showed them (or utc=True with the time_zone of the days)."
            )
        try:
            return compute.cast(column, naive)  # of times with a zone what clocks of UTC showed
        except arrow.ArrowInvalid as error:
            raise DataError(f"{name}, column {label!r}: {error}; expected dates from 1970 to 2105.") from None
    expected = _EXPECTED[kind]
    final = arrow.float64() if kind == "number" else naive
    if types.is_null(column.type):
        return compute.cast(column, final)
    if kind == "number" and (types.is_floating(column.type) or types.is_integer(column.type)):
        return compute.cast(column, final)
    if not (types.is_string(column.type) or types.is_large_string(column.type)):
        raise DataError(f"{name}, column {label!r} holds {column.type}; expected {expected}.")
    text = _without_missing(column)
    ways: list[tuple[str | None, Any]] = [(None, final)]
    if kind == "utc":
        ways.append((None, arrow.timestamp("ns", "UTC")))
    if kind != "number":
        ways += [(form, naive) for form in time_formats]
    for way in ways:
        try:
            return compute.cast(_read(text, *way), final)
        except arrow.ArrowInvalid:
            continue
    # One value at a time, by the same rules; where each reads, they are of several formats, and the first of another than the first is named.
    values = [value for value in text.to_pylist() if value is not None]
    read = [next((way for way in ways if _reads(value, *way)), None) for value in values]
    first = next((value for value, way in zip(values, read, strict=True) if way is None), None)
    if first is None:
        first = next(value for value, way in zip(values, read, strict=True) if way != read[0])
        expected += f", all in one format, as in {values[0]!r}"
    raise DataError(f"{name}, column {label!r}: {first!r}; expected {expected}.")


def _read(text: Any, form: str | None, kind: Any) -> Any:
    compute = pyarrow("pyarrow.compute")
    return compute.cast(text if form is None else compute.strptime(text, format=form, unit="s"), kind)


def _without_missing(text: Any) -> Any:
    arrow, compute = pyarrow(), pyarrow("pyarrow.compute")
    return compute.if_else(compute.is_in(text, value_set=arrow.array(MISSING)), arrow.scalar(None, text.type), text)


def _reads(value: str, form: str | None, kind: Any) -> bool:
    """Whether Arrow reads a value as it reads the column."""
    arrow = pyarrow()
    try:
        _read(arrow.array([value]), form, kind)
    except arrow.ArrowInvalid:
        return False
    return True


def find_column(place: str, columns: Sequence[str], name: str, hint: str = "") -> str:
    """The column called `name`.

    Raises
    ------
    DataError
        Where it is missing, with what may have been meant.
    """
    if name not in columns:
        raise DataError(
            f"{place}: column {name!r} is missing{closest(name, columns)}; the columns are {listed(columns, 20)}{hint}."
        )
    return name


def read_parquet(path: Path) -> pd.DataFrame:
    """A small Parquet file as a table.

    Raises
    ------
    DataError
        A damaged file, or no pyarrow.
    """
    arrow, parquet = pyarrow(), pyarrow("pyarrow.parquet")
    try:
        table: pd.DataFrame = parquet.read_table(path).to_pandas()
    except (arrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: the Parquet file is damaged or cut short ({error}); expected a whole file.") from None
    return table
