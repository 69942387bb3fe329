"""What functions and options of a study or a check are, told from anything else without pickles: what a checkpoint may go on with."""

import dataclasses
import functools
import hashlib
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel

from .checkpoint import digest
from .parallel import fingerprint


def called(function: Any) -> str:
    """A function's name for the record."""
    named = getattr(function, "func", function)  # of a functools.partial
    return f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', type(named).__name__)}"


def written(value: Any) -> Any:
    """A value for the record: numbers and texts as they are, functions by name, of other objects the kind."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [written(x) for x in value]
    if isinstance(value, Mapping):
        return {str(name): written(x) for name, x in value.items()}
    return called(value) if callable(value) and hasattr(value, "__qualname__") else type(value).__name__


def identity(value: Any, where: str) -> str:
    """Digest of what a function or a value consists of, the same in every process and on every machine.

    Of functions: name, code, constants, defaults, and the values that they close over; of partials and bound methods also what is bound; of
    dataclasses and Equinox modules the fields (but those with `compare=False`) and how they are called; of pytrees the leaves. Other functions that a
    function calls by their names are not looked into.

    Parameters
    ----------
    value : the function or value.
    where : its name, for the message.

    Raises
    ------
    InputError : for an object of another kind, whose content nobody can tell.
    """
    seen = hashlib.sha256()
    for part in _parts(value, where, ()):
        seen.update(f"{len(part)}:{part}".encode())
    return seen.hexdigest()


def _parts(value: Any, where: str, above: tuple[int, ...]) -> Iterator[str]:
    if id(value) in above:  # a function that closes over itself
        yield f"above {len(above) - above.index(id(value))}"
        return
    inside = (*above, id(value))

    def all_of(parts: Any) -> Iterator[str]:
        for name, part in parts:
            yield str(name)
            yield from _parts(part, f"{where}: {name}" if isinstance(name, str) else where, inside)

    if value is None or isinstance(value, bool | int | float | complex | str | bytes | type(...)):
        yield f"{type(value).__name__} {value!r}"
    elif isinstance(value, np.generic | np.ndarray | jax.Array) and not _holds_objects(value):
        yield f"array {digest(value)}"
    elif isinstance(value, ForwardModel):
        yield f"model {fingerprint(value)}"
    elif isinstance(value, Mapping):
        yield f"mapping of {len(value)}"
        yield from all_of((f"{name!r}", value[name]) for name in sorted(value, key=repr))
    elif isinstance(value, frozenset | set):
        yield f"set of {sorted(map(repr, value))}"
    elif isinstance(value, list | tuple):
        yield f"{type(value).__name__} of {len(value)}"
        yield from all_of(enumerate(value))
    elif isinstance(value, functools.partial):
        yield "partial"
        yield from all_of(enumerate((value.func, value.args, value.keywords)))
    elif isinstance(value, types.MethodType):
        yield "method"
        yield from all_of(enumerate((value.__func__, value.__self__)))
    elif isinstance(value, types.CodeType):
        # Not co_consts as a whole: its order of sets differs between processes.
        yield f"code {digest(np.frombuffer(value.co_code, np.uint8))} {value.co_names} {value.co_varnames} {value.co_freevars}"
        yield from all_of(enumerate(value.co_consts))
    elif isinstance(value, types.FunctionType):
        wrapped = [cell.cell_contents for cell in value.__closure__ or ()]
        yield f"function {called(value)}"
        yield from all_of(enumerate((value.__code__, value.__defaults__, value.__kwdefaults__, wrapped)))
    elif isinstance(value, type | types.BuiltinFunctionType | types.ModuleType | np.ufunc):
        yield f"named {getattr(value, '__module__', '')}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"
    elif hasattr(value, "__wrapped__") and callable(value):  # functools.cache, jax.jit
        yield f"wrapped by {type(value).__name__}"
        yield from _parts(value.__wrapped__, where, inside)
    elif dataclasses.is_dataclass(value):
        yield f"object {type(value).__module__}.{type(value).__qualname__}"
        yield from all_of((f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.compare)
        if isinstance(function := vars(type(value)).get("__call__"), types.FunctionType):
            yield from _parts(function, where, inside)
    elif jax.tree_util.all_leaves([value]):
        raise InputError(
            f"{where} is {type(value).__name__}, of which nobody can tell whether it is the same the next time; "
            "a checkpoint needs functions of a module, numbers, texts, arrays or dataclasses of these."
        )
    else:
        leaves, structure = jax.tree.flatten(value)
        yield f"tree {type(value).__module__}.{type(value).__qualname__} {re.sub(' at 0x[0-9a-f]+', '', str(structure))}"
        yield from all_of(enumerate(leaves))


def _holds_objects(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.hasobject
