"""Folders of runs: they appear whole or not at all, and what was killed or interrupted can be gone on with."""

import contextlib
import datetime
import logging
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bayes_mfg.errors import InputError


def new_folder(given: str | None, name: str) -> Path:
    """Folder for a run, which does not exist yet or is empty.

    A run is never overwritten: results that took minutes to make should not go by a slip of the arrow keys.
    """
    if given is not None:
        folder = Path(given)
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise InputError(f"{folder} exists already; runs are not overwritten: choose another folder with --out.")
    else:
        stamp = f"{name}-{datetime.datetime.now().astimezone():%Y%m%d-%H%M%S}"
        folder = Path("runs") / stamp
        count = 2
        while folder.exists() or _hidden(folder).exists():
            folder, count = folder.with_name(f"{stamp}-{count}"), count + 1
    above = next(path for path in folder.absolute().parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: the folder {above} cannot be written to; choose another one with --out.")
    return folder


CHECKPOINT = "checkpoint"
"""Folder inside a run that is not finished."""


def discard_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a finished run: out of the way at once, so that a kill leaves all of it or none."""
    kept = folder / CHECKPOINT
    if kept.is_dir():
        shutil.rmtree(kept.rename(folder / f".{CHECKPOINT}.removed"), ignore_errors=True)


DRAWN = ("nuts-*.npz", "svi-*.npz")
"""Files of a checkpoint that took time to make; the mode can be found again."""


def _hidden(folder: Path) -> Path:
    """Where a run is made, until it appears."""
    whole = Path(os.path.abspath(folder))  # noqa: PTH100 - "a/.." has a name, too
    return whole.with_name(f".{whole.name}.part")


def again(folder: Path) -> str:
    """Options that go on with a run, as they are typed."""
    return f"--resume --out {shlex.quote(str(folder))}"


def unfinished(given: str | None, name: str) -> Path:
    """Folder of the run to go on with: killed, and then it is still hidden, or interrupted.

    Raises
    ------
    InputError : when there is none, or two in one place.
    """
    if given is not None:
        folders = [Path(given)]
    else:
        stamped = re.compile(re.escape(name) + r"-\d{8}-\d{6}(-\d+)?")
        names = {re.sub(r"^\.(.+)\.part$", r"\1", path.name) for path in Path("runs").glob("*")}
        folders = [Path("runs") / found for found in sorted(filter(stamped.fullmatch, names), reverse=True)]
    for folder in folders:
        if _hidden(folder).is_dir() and folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} exists, and so does {_hidden(folder)}, which would take its place; remove one of them.")
        if _hidden(folder).is_dir() or (folder / CHECKPOINT).is_dir():
            return folder
    if given is not None and (folders[0] / "fit.nc").is_file():
        raise InputError(f"{folders[0]} is finished; there is nothing to go on with.")
    raise InputError(f"{given or f'runs/{name}-TIME'}: there is no unfinished run to go on with.")


@contextlib.contextmanager
def appearing(folder: Path, *, resume: bool, tell: Callable[[str], None]) -> Iterator[Path]:
    """A hidden folder that becomes `folder` at the end.

    When something goes wrong it vanishes with everything in it, unless there is something to go on from: then it stays, hidden, for `--resume`. What
    was shown before, the fit of an interrupted run, is shown again. `tell` is given a sentence on how to go on; an interrupt bears it itself.

    Raises
    ------
    InputError : when an unfinished run is in its place, or is being made there by another process.
    """
    from bayes_mfg.inference.files import give_usual_rights, locked

    made = []
    work = _hidden(folder)
    for path in reversed([work.parent, *work.parent.parents]):
        if not path.exists():
            path.mkdir()
            made.append(path)
    if not resume:
        try:
            work.mkdir(mode=0o700)
        except FileExistsError as error:
            raise InputError(
                f"{folder}: an unfinished run is there, or one that is still being made; go on with it by {again(folder)}, or remove {work}."
            ) from error
    shown = resume and not work.exists()
    with locked(folder if shown else work):
        try:
            if shown:
                folder.rename(work)
            yield work
            give_usual_rights(work)
            if folder.exists():
                folder.rmdir()
            work.rename(folder)
        except BaseException as error:
            hint = _leave(error, folder, work, made, resume=resume, shown=shown)
            if hint and isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(hint) from None
            if hint:
                tell(hint)
            raise


def _leave(error: BaseException, folder: Path, work: Path, made: Sequence[Path], *, resume: bool, shown: bool) -> str:
    """Keep what is worth it of a run that went wrong, and remove the rest; a sentence on how to go on, or nothing."""
    from bayes_mfg.inference import FitError

    kept = work / CHECKPOINT
    drawn = any(path for pattern in DRAWN for path in kept.glob(pattern))
    useful = drawn or (any(kept.glob("*.npz")) and not isinstance(error, InputError | FitError))
    if shown and work.exists() and not folder.exists():
        work.rename(folder)
    if not (resume or useful):
        shutil.rmtree(work, ignore_errors=True)
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir()
    refused = resume and isinstance(error, InputError)
    return f"what there is so far is kept; the same command with {again(folder)} goes on." if useful and not refused else ""


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Keep what the library logs in a file."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("bayes_mfg")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()
