"""Models that travel between processes as what they were made from: their own insides are functions, which cannot."""

from collections.abc import Mapping
from typing import Any, Self


class Rebuilt:
    """An object that pickles as its class and the arguments it was made with, and is made anew on the other side."""

    _made_from: tuple[tuple[Any, ...], dict[str, Any]]
    _changes: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        made._made_from = (args, kwargs)
        return made

    def _changed(self, method: str, *args: Any) -> Self:
        """A copy of this object that is remembered as the result of calling `method` on it."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._changes = (*self._changes, (method, args))
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), *self._made_from, self._changes)


def _rebuild(
    cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any], changes: tuple[tuple[str, tuple[Any, ...]], ...]
) -> Any:
    made = cls(*args, **kwargs)
    for method, given in changes:
        made = getattr(made, method)(*given)
    return made
