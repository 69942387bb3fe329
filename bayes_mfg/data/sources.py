"""Published files as streams: plain, packed with gzip, or in zip archives, one or many."""

import gzip
import io
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tqdm.auto import tqdm

from bayes_mfg.errors import DataError

from .wording import listed

ENDINGS = (".csv", ".csv.gz", ".csv.zip", ".zip", ".parquet")
DAMAGE = (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile)
"""What Python's unpackers raise on a file that is damaged or cut short."""


class Label(str):
    """Where a table lies, as messages name it: "folder/archive.zip (member.csv)".

    Attributes
    ----------
    file : the file.
    members : the member of an archive, and those of archives within it.
    """

    file: Path
    members: tuple[str, ...]

    def __new__(cls, file: Path, *members: str) -> "Label":
        """From the file and the members."""
        label = super().__new__(cls, " ".join([str(file), *(f"({member})" for member in members)]))
        label.file, label.members = file, members
        return label

    @property
    def short(self) -> str:
        """Without the folder of the file."""
        return str(Label(Path(self.file.name), *self.members))

    @property
    def table(self) -> str:
        """What the table is called whatever it is packed in, and without the "(1)" that browsers add to a second download."""
        name = PurePosixPath(self.members[-1]).name if self.members else self.file.name
        return _REPEATED.sub("", name.casefold()) or name


_REPEATED = re.compile(r"(\.csv|\.gz|\.zip|\.parquet| ?\(\d+\))+$")


def files_of(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], reader: str) -> list[Path]:
    """Files to read, in order: a file, the tables in a folder, sorted by name, or a list of either.

    Raises
    ------
    DataError
        Something that is no name of a file, a file that is missing or there twice (packed and unpacked, or downloaded twice), or a
        folder without a table.
    """
    given = [path] if isinstance(path, str | os.PathLike) else path
    if not isinstance(given, Sequence) or not given or not all(isinstance(one, str | os.PathLike) and str(one) for one in given):
        raise DataError(f"{reader}: path is {path!r}; expected the name of a file or folder, or a list of them.")
    found: list[Path] = []
    for one in map(Path, given):
        if one.is_dir():
            inside = sorted(
                item for item in one.iterdir() if item.name.casefold().endswith(ENDINGS) and not item.name.startswith(".")
            )
            if not inside:
                raise DataError(f"{one}: the folder holds no table; expected files that end in {listed(ENDINGS)}.")
            found += inside
        elif one.exists():
            found.append(one)
        else:
            raise DataError(f"{one}: there is no such file.")
    resolved = [one.resolve() for one in found]
    for one, real in zip(found, resolved, strict=True):
        if resolved.count(real) > 1:
            raise DataError(f"{one}: the file is named {resolved.count(real)} times; expected each file once.")
    tables: dict[str, Label] = {}
    for one in found:
        once(Label(one), tables)
    return found


def once(label: Label, seen: MutableMapping[str, Label]) -> Label:
    """The label of a table, which is noted as seen.

    Raises
    ------
    DataError
        Where one that is called the same was seen: rows would be counted twice.
    """
    if label.table in seen:
        raise DataError(
            f"{label}: {seen[label.table]} is called the same, and the same rows are not to be counted twice; expected each table once,"
            " packed or unpacked (rename one of them if they differ)."
        )
    seen[label.table] = label
    return label


@contextmanager
def damage_told(name: str) -> Iterator[None]:
    """Turns what unpacking raises into a `DataError` that names the file."""
    try:
        yield
    except (*DAMAGE, RuntimeError, NotImplementedError) as error:  # the last two: an encrypted archive, a strange compression
        raise DataError(f"{name}: the packed file is damaged or cut short ({error}); expected a whole download.") from None
    except OSError as error:
        raise DataError(f"{name}: the file cannot be read ({error.strerror or error}).") from None


def streams(path: Path, raw: IO[bytes], seen: MutableMapping[str, Label]) -> Iterator[tuple[Label, IO[bytes]]]:
    """Name, for messages, and unpacked content of every table in an open file.

    An archive within an archive is opened, too; macOS's `__MACOSX/._*` members are no tables. `seen` has the tables of earlier files.

    Raises
    ------
    DataError
        A damaged file, an archive without a table, or a table that was seen.
    """
    yield from _unpacked(Label(path), raw, seen)


def _unpacked(name: Label, raw: Any, seen: MutableMapping[str, Label]) -> Iterator[tuple[Label, IO[bytes]]]:
    first = raw.read(4)
    raw.seek(0)
    if first.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=raw) as stream:
            yield once(name, seen), io.BufferedReader(_Told(stream, name), 1 << 20)
    elif first in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _members(name, raw, seen)
    else:
        yield once(name, seen), io.BufferedReader(_Told(raw, name), 1 << 20)


def _members(name: Label, raw: Any, seen: MutableMapping[str, Label]) -> Iterator[tuple[Label, IO[bytes]]]:
    with damage_told(name):
        archive = zipfile.ZipFile(raw)
    with archive:
        members = [member for member in archive.infolist() if _is_table(member.filename)]
        if not members:
            raise DataError(f"{name}: the archive holds {listed(archive.namelist()) or 'nothing'}; expected a CSV file.")
        for member in members:
            label = Label(name.file, *name.members, member.filename)
            with damage_told(label):
                opened = archive.open(member)
            with opened:
                if member.filename.casefold().endswith((".zip", ".gz")):
                    yield from _unpacked(label, _Told(opened, label), seen)
                else:
                    yield once(label, seen), io.BufferedReader(_Told(opened, label), 1 << 20)


def _is_table(member: str) -> bool:
    path = PurePosixPath(member)
    return "__MACOSX" not in path.parts and not path.name.startswith(".") and path.name.casefold().endswith(ENDINGS[:-1])


class _Told(io.RawIOBase):
    """A stream whose damage is told as a `DataError`."""

    def __init__(self, stream: Any, name: str):
        self._stream, self._name = stream, name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        with damage_told(self._name):
            return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any, /) -> int:
        with damage_told(self._name):
            return int(self._stream.readinto(buffer))


def progress_bar(total: int, what: str, show: bool | None) -> Any:
    """A progress bar of `total` bytes; shown on a terminal only where `show` is None."""
    visible = sys.stderr.isatty() if show is None else show
    return tqdm(total=total, desc=what, unit="B", unit_scale=True, disable=not visible, leave=False, mininterval=0.2)
