"""Models that travel between processes as what they were made from: their own insides are functions, which cannot."""

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np


class Rebuilt:
    """An object that pickles as its class and the arguments it was made with, and is made anew on the other side."""

    _made_from: tuple[tuple[Any, ...], dict[str, Any]] | None
    _changes: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        # What the caller changes afterwards in containers and arrays of theirs is no part of the object.
        made._made_from = (tuple(map(_own, args)), {name: _own(x) for name, x in kwargs.items()})
        return made

    def _changed(self, method: str, *args: Any) -> Self:
        """A copy of this object that is remembered as the result of calling `method` on it."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._changes = (*self._changes, (method, args))
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        if self._made_from is None:
            raise TypeError(f"this {type(self).__name__} holds data that it cannot be made of anew")
        return _rebuild, (type(self), *self._made_from, self._changes)


def _own(x: Any) -> Any:
    return copy.copy(x) if isinstance(x, dict | list | set | np.ndarray) else x


def _rebuild(
    cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any], changes: tuple[tuple[str, tuple[Any, ...]], ...]
) -> Any:
    made = cls(*args, **kwargs)
    for method, given in changes:
        made = getattr(made, method)(*given)
    return made
