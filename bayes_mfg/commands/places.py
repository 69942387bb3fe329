"""Where saved runs are, and where pages, pictures and tables may go; what cannot be is refused before anything is computed."""

import dataclasses
from pathlib import Path

from bayes_mfg.errors import InputError


@dataclasses.dataclass(frozen=True)
class Kind:
    """Files that may take the place of older ones of their kind, and of nothing else.

    Attributes
    ----------
    name : in words.
    endings : of their names; the first is the one that is told.
    """

    name: str
    endings: tuple[str, ...]


PAGE = Kind("page", (".html", ".htm"))
PICTURE = Kind("picture", (".svg",))
TABLE = Kind("table", (".csv",))
ROWS = Kind("file of rows", (".json",))


def replaceable(path: str | Path, kind: Kind) -> Path:
    """A place for a file that may replace an older one of its kind.

    Raises
    ------
    InputError : when the folder does not exist, or something else is there.
    """
    target = in_folder(Path(path))
    if target.is_dir():
        raise InputError(f"{target} is a folder; the name of a {kind.name} is needed.")
    if target.exists() and target.suffix.casefold() not in kind.endings:
        raise InputError(
            f"{target} exists already and is no {kind.name}; only an older {kind.name} ({kind.endings[0]}) is replaced."
        )
    return target


def if_asked(path: str | None, kind: Kind) -> Path | None:
    """The same for a file that was perhaps not asked for."""
    return None if path is None else replaceable(path, kind)


def in_folder(target: Path) -> Path:
    """A place in a folder that exists.

    Raises
    ------
    InputError : when there is no such folder.
    """
    if not target.absolute().parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist.")
    return target


def saved_fit(place: str) -> Path:
    """The saved fit of a run, by the run's folder or by its own name.

    Raises
    ------
    InputError : when there is none.
    """
    path = Path(place)
    if path.is_dir():
        path = path / "fit.nc"
    if not path.is_file():
        raise InputError(f"{place}: there is no saved fit; the folder of a run, or its fit.nc, is needed.")
    return path


def config_beside(fit: Path) -> Path:
    """The config of a saved fit's run, from which its model is made again.

    Raises
    ------
    InputError : when there is none.
    """
    path = fit.with_name("config.toml")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; the model is made again from the config of the run.")
    return path
