"""Reading comma-separated files, and populations in tidy ones (comma-separated, or Parquet)."""

import csv
import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bayes_mfg.errors import DataError

from .arrow import read_parquet
from .population import Population
from .tidy import population_from_table


def read_table(
    path: str | os.PathLike[str],
    *,
    states: Sequence[str] | None = None,
    trajectories: Sequence[str] | None = None,
    times: ArrayLike | None = None,
    time_unit: str = "",
    provenance: Mapping[str, Any] | None = None,
) -> Population:
    """Population from a tidy file, one row for each observed cell: CSV (plain, or packed with gzip) or Parquet, told by the first bytes.

    Parameters
    ----------
    path : file with the columns `time`, `state`, one of `count` and `share`, and optionally `trajectory` and
        `total`.
    states, trajectories, times, time_unit, provenance : as in `Population.from_table`.

    Raises
    ------
    DataError
        A file that is missing or cannot be read, an unknown or missing column, or a value that is no number where one must be;
        the message names the file, the line (the header is line 1; rows of a Parquet file count from 0) and the column. Also a Parquet
        file without pyarrow (`pip install "bayes-mfg[arrow]"`).
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise DataError(f"read_table: path is {path!r}; expected the name of a file.")
    options: dict[str, Any] = {"states": states, "trajectories": trajectories, "times": times, "time_unit": time_unit}
    options["provenance"] = {"file": Path(path).name} if provenance is None else provenance
    if _is_parquet(Path(path)):
        return _from(path, read_parquet(Path(path)), lambda row: f"row {row}", options)
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path}: the file is empty; expected a header line with the columns time, state and count or share.")
    header = [cell.strip() for cell in lines[0][1]]
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise DataError(f"{path}, line 1: the columns are separated by {word} ({header[0]!r}); expected commas.")
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {line}: {len(cells)} cells; expected {len(header)}, as in the header ({', '.join(header)})."
            )
    # Always text, so that a state named "1" or "NA" keeps its name. An object array, because an empty list of rows has no
    # columns.
    rows = np.array([cells for _, cells in lines[1:]], object).reshape(-1, len(header))
    return _from(path, pd.DataFrame(rows, columns=header), lambda row: f"line {lines[row + 1][0]}", options)


def _from(
    path: str | os.PathLike[str], table: pd.DataFrame, where: Callable[[int], str], options: Mapping[str, Any]
) -> Population:
    try:
        return population_from_table(Population, table, where, **options)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:  # told by what reads it
        return False


def read_lines(path: str | os.PathLike[str], member: Callable[[Sequence[str]], str] | None = None) -> list[tuple[int, list[str]]]:
    """Line number (from 1) and cells of every line of a CSV file that is not blank.

    Parameters
    ----------
    path : a plain file, or one packed with gzip or, where `member` is given, zip; told by its first bytes, not by its name.
    member : chooses the file to read among the names in a zip archive, or raises.

    Raises
    ------
    DataError
        A file that is missing, a folder, damaged or cut short, or not text in UTF-8.
    """
    try:
        text = _unpack(Path(path), member).decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not text in UTF-8; expected a file of comma-separated values.") from None
    except (
        EOFError,
        zlib.error,
        zipfile.BadZipFile,
        gzip.BadGzipFile,
        RuntimeError,
    ) as error:  # RuntimeError: an encrypted archive
        raise DataError(f"{path}: the packed file is damaged or cut short ({error}); expected a whole download.") from None
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error}).") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines = []
    try:
        # A quoted cell may hold line breaks: the line is the one on which the record begins.
        line = 1
        for cells in reader:
            if cells:
                lines.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; expected comma-separated values.") from None
    return lines


def _unpack(path: Path, member: Callable[[Sequence[str]], str] | None) -> bytes:
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        return gzip.decompress(content)
    if content.startswith(b"PK\x03\x04"):
        if member is None:
            raise DataError(f"{path}: the file is a zip archive; expected a CSV file, plain or packed with gzip.")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.read(member(archive.namelist()))
    return content
