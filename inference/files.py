"""Files that appear whole or not at all."""

import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from bayes_mfg.errors import InputError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

_ASKING = threading.Lock()


def give_usual_rights(path: Path) -> None:
    """Give a temporary file or folder, which is private, the rights of any other."""
    with _ASKING:  # the umask can only be read by setting it, and is the process's
        umask = os.umask(0)
        os.umask(umask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from working in a folder; the lock ends with the process, however it ends.

    Nothing on systems and file systems without such locks. Of two threads of a process the second is refused, too.

    Raises
    ------
    InputError : when another process does so.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: another process is working there.") from error
        except OSError as error:  # some network file systems lock no folders
            log.debug("%s cannot be locked (%s)", folder, error)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new file beside `target` to write to; it takes the place of `target` when the block ends, and is removed when the block fails.

    Raises
    ------
    InputError : when the folder does not exist.
    """
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist.")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        give_usual_rights(part)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_whole(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text to a file, whole or not at all; what was there is replaced.

    Raises
    ------
    InputError : when the folder does not exist.
    """
    target = Path(path)
    with replacing(target) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    return target
