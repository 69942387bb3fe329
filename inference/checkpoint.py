"""Checkpoints: what a fit in progress has so far, in files that appear whole or not at all, from which it goes on after a kill.

A checkpoint is a folder. `about.json` says what the fit is; every stage adds numbered files of its own, and never changes one. So a kill at any
moment leaves a beginning of the sequence, and since every file holds the state that the next step sets out from, going on gives the same draws as if
nothing had happened.
"""

import contextlib
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np

from bayes_mfg.errors import InputError

from .files import locked, replacing

ABOUT = "about.json"


class Checkpoint:
    """The folder of one fit in progress, which is made when it is `held`.

    Parameters
    ----------
    folder : the folder above it must exist.
    about : what the fit is, JSON-able; a fit of anything else must not go on from here.
    resume : go on from what is there. Without it, a folder with anything in it is refused.

    Raises
    ------
    InputError : for a folder that is in use without `resume`, that belongs to another fit, or that holds something else.
    """

    def __init__(self, folder: str | os.PathLike[str], about: Mapping[str, Any], *, resume: bool = False) -> None:
        self.folder = Path(folder)
        self.about = json.loads(json.dumps(about, default=_plain))
        self.resume = resume
        self._refuse()

    def _refuse(self) -> None:
        """Refuse a folder that is not this fit's; see `Checkpoint`."""
        known = self.folder / ABOUT
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is no folder; a checkpoint is one.")
        if not self.folder.absolute().parent.is_dir():
            raise InputError(f"{self.folder}: the folder {self.folder.absolute().parent} does not exist.")
        there = sorted(path.name for path in self.folder.iterdir() if not _leftover(path)) if self.folder.exists() else []
        if there and not self.resume:
            raise InputError(f"{self.folder} is not empty; resume=True goes on from a checkpoint, or choose another folder.")
        if there and not known.is_file():
            raise InputError(f"{self.folder} is no checkpoint: it holds {there[0]} and no {ABOUT}.")
        if there:
            before = _read_about(known)
            odd = [name for name in sorted(before.keys() | self.about.keys()) if before.get(name) != self.about.get(name)]
            if odd:
                raise InputError(
                    f"{self.folder} is the checkpoint of another fit: {', '.join(odd)} differ{'s' if len(odd) == 1 else ''}"
                    f"{_values(before, self.about, odd[0])}. The same draws cannot be had; start anew in another folder."
                )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Say in the folder what the fit is, and keep all others from it while it is worked on.

        What was looked at before nobody else was kept out is looked at again. When nothing came to be kept, the folder is left empty.

        Raises
        ------
        InputError : when another process works there, or has by now left something.
        """
        self.folder.mkdir(exist_ok=True)
        with locked(self.folder):
            self._refuse()
            fresh = self._introduced()
            try:
                yield
            finally:
                if fresh and [path.name for path in self.folder.iterdir() if not _leftover(path)] == [ABOUT]:
                    (self.folder / ABOUT).unlink()

    def _introduced(self) -> bool:
        """Write what the fit is, where that is not there yet; whether it was not."""
        if (self.folder / ABOUT).exists():
            return False
        self.folder.mkdir(exist_ok=True)
        with _kept(self.folder / ABOUT) as file:
            file.write(json.dumps(self.about, indent=1).encode())
        return True

    def write(self, stage: str, number: int, arrays: Mapping[str, Any]) -> None:
        """Keep arrays as file `number` of a stage."""
        self._introduced()
        with _kept(self._path(stage, number)) as file:
            np.savez(file, allow_pickle=False, **{name: np.asarray(x) for name, x in arrays.items()})

    def read(self, stage: str) -> list[dict[str, np.ndarray]]:
        """What a stage has kept, from file 0 on.

        Raises
        ------
        InputError : for a file that is damaged.
        """
        found: list[dict[str, np.ndarray]] = []
        while (path := self._path(stage, len(found))).exists():
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                    found.append(dict(arrays))
            except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
                raise InputError(f"{path} is damaged ({error}); remove it to go on from what is before it.") from error
        return found

    def _path(self, stage: str, number: int) -> Path:
        return self.folder / f"{stage}-{number:06d}.npz"


@contextlib.contextmanager
def _kept(path: Path) -> Iterator[IO[bytes]]:
    """A file that is on the disk before it has its name: else a crash of the machine could leave the name without the content."""
    with replacing(path) as part, part.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON-able")


def pack(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a pytree as named arrays; random keys as their data.

    Not Equinox's serialisation: these stand in one file beside the draws, and a zip file's check sums tell damage.
    """
    return {f"leaf/{k}": np.asarray(_data(x)) for k, x in enumerate(jax.tree.leaves(tree))}


def unpack(template: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """A pytree of the template's structure with the leaves that `pack` kept.

    Raises
    ------
    InputError : when they are not those of such a pytree.
    """
    leaves, structure = jax.tree.flatten(template)
    kept = [arrays[f"leaf/{k}"] for k in range(len(leaves)) if f"leaf/{k}" in arrays]
    alike = len(kept) == len(leaves) == sum(name.startswith("leaf/") for name in arrays)
    if not alike or any(jnp.shape(_data(a)) != b.shape for a, b in zip(leaves, kept, strict=True)):
        raise InputError("The checkpoint holds the state of another sampler.")
    restored = [
        jax.random.wrap_key_data(jnp.asarray(b)) if _is_key(a) else jnp.asarray(b) for a, b in zip(leaves, kept, strict=True)
    ]
    return jax.tree.unflatten(structure, restored)


def digest(tree: Any) -> str:
    """A fingerprint of all arrays in a pytree, of their shapes and types."""
    seen = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(_data(leaf))
        seen.update(f"{array.dtype}{array.shape}".encode())
        seen.update(array.tobytes())
    return seen.hexdigest()


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _data(x: Any) -> Any:
    return jax.random.key_data(x) if _is_key(x) else x


def _leftover(path: Path) -> bool:
    """A file that was being written when the fit was killed."""
    return re.fullmatch(r"\..+\.part", path.name) is not None


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); the checkpoint cannot be used.") from error
    if not isinstance(about, dict):
        raise InputError(f"{path} is damaged; the checkpoint cannot be used.")
    return about


def _values(before: Mapping[str, Any], about: Mapping[str, Any], name: str) -> str:
    """Both values of what differs, where they are short enough to be read."""
    words = [json.dumps(x.get(name)) for x in (before, about)]
    return f" ({name} was {words[0]} and is {words[1]})" if max(map(len, words)) <= 60 else ""
