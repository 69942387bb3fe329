"""From TOML values to the arguments of a class or function, checked against its signature.

Nothing here knows a particular game, path or reader: what is accepted is read off the signature, so that a new class can be named
in a config without a line being written for it.
"""

import dataclasses
import difflib
import inspect
import json
import math
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bayes_mfg.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Place:
    """A table of a config file, for messages.

    Attributes
    ----------
    file : the config, as the user named it.
    table : name of the table, "" for the top of the file.
    """

    file: str
    table: str = ""

    def inside(self, key: str) -> "Place":
        """The table under a key of this one."""
        return Place(self.file, f"{self.table}.{key}" if self.table else key)

    def at(self, key: str) -> str:
        """`file: [table] key`."""
        return f"{self} {key}"

    def __str__(self) -> str:
        return f"{self.file}: [{self.table}]" if self.table else f"{self.file}:"


def choose(value: Any, choices: Iterable[str], what: str) -> str:
    """One of `choices`; `what` begins the message, such as "run.toml: [game] name".

    Raises
    ------
    ConfigError : on anything else, with what is accepted and what was perhaps meant.
    """
    known = list(choices)
    if isinstance(value, str) and value in known:
        return value
    raise ConfigError(f"{what} = {shown(value)} is not known{_meant(value, known)}; it is one of {', '.join(known)}.")


def check_keys(table: Mapping[str, Any], accepted: Iterable[str], place: Place) -> None:
    """Refuse keys that are not accepted.

    Raises
    ------
    ConfigError : on the first unknown key.
    """
    known = list(accepted)
    for key, value in table.items():
        if key not in known:
            what = f"the table [{place.inside(key).table}]" if isinstance(value, dict) and not place.table else f"the key {key!r}"
            listed = ", ".join(known) if known else "nothing"
            where = str(place) if place.table else place.file + ": the config"
            raise ConfigError(f"{where} does not take {what}{_meant(key, known)}; it takes {listed}.")


def _meant(value: Any, known: Iterable[str]) -> str:
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(str(value).casefold(), folded, n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(repr(folded[name]) for name in close)}?)" if close else ""


def shown(value: Any) -> str:
    """A value as TOML has it, cut short where it is long."""
    text = toml_value(value)
    return text if len(text) <= 80 else text[:77] + "..."


def toml_value(value: Any) -> str:
    """A value in TOML's notation; tables are written inline."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    return repr(value) if isinstance(value, int | float) else str(value)


def toml_key(key: str) -> str:
    """A key in TOML's notation."""
    bare = key and key.isascii() and all(c.isalnum() or c in "-_" for c in key)
    return key if bare else toml_value(key)


def arguments(
    target: Callable[..., Any], table: Mapping[str, Any], place: Place, *, leave: Iterable[str] = (), also: Iterable[str] = ()
) -> dict[str, Any]:
    """Keyword arguments of `target` from a table.

    Parameters
    ----------
    target : a class or function.
    table : the TOML table.
    place : where it stands.
    leave : parameters of `target` that a config does not give.
    also : keys of the table that are not for `target`, such as its name; they are passed over.

    Raises
    ------
    ConfigError : for an unknown key, a missing one, or a value of the wrong type.
    """
    left, others = set(leave), list(also)
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(target, eval_str=True).parameters.items()
        if name not in left and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    check_keys(table, [*others, *parameters], place)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in table:
            raise ConfigError(f"{place} needs the key {name!r}; it takes {', '.join([*others, *parameters])}.")
    return {name: convert(table[name], parameters[name].annotation, place, name) for name in table if name in parameters}


def construct(target: Callable[..., Any], table: Mapping[str, Any], place: Place, *, also: Sequence[str] = ()) -> Any:
    """`target` called with the arguments in a table; what it refuses is refused with the place.

    Raises
    ------
    ConfigError : see `arguments`, and where `target` itself refuses a value.
    """
    keywords = arguments(target, table, place, also=also)
    try:
        return target(**keywords)
    except ValueError as error:
        raise ConfigError(f"{place} {error}") from error
    except (TypeError, ArithmeticError) as error:
        given = ", ".join(f"{key} = {shown(value)}" for key, value in table.items() if key not in also)
        raise ConfigError(f"{place} {target.__name__} cannot be made from {given or 'nothing'} ({error}).") from error


# What a parameter's annotation accepts.
_WORDS = {
    "true": "true or false",
    "whole": "a whole number",
    "number": "a number",
    "text": "text",
    "list": "a list",
    "array": "a list of numbers",
    "prior": 'a prior such as {distribution = "LogNormal", loc = 0.0, scale = 0.5}',
    "link": 'a link such as {kind = "Softplus", floor = 0.1}',
    "path": 'a table with a family such as {family = "GaussianProcess", scale = 0.5}',
    "table": "a table",
}


def convert(value: Any, annotation: Any, place: Place, key: str) -> Any:
    """A TOML value as an annotation wants it.

    Numbers are finite; true and false are no numbers; an inline table with `distribution` is a prior.

    Raises
    ------
    ConfigError : when it does not fit; the sentence names file, table, key, value and what is needed.
    """
    accepted = _accepted(annotation)
    if isinstance(value, bool):
        if "true" in accepted:
            return value
    elif isinstance(value, int):
        if abs(value) > LARGEST_WHOLE:
            raise ConfigError(f"{place.at(key)} = {shown(value)}; a number of at most 2^53 is needed.")
        if "whole" in accepted:
            return value
        if accepted.keys() & {"number", "array"}:
            return float(value)
    elif isinstance(value, float):
        if accepted.keys() & {"number", "array"} and math.isfinite(value):
            return value
        if accepted.keys() & {"number", "array", "whole"} and not math.isfinite(value):
            raise ConfigError(f"{place.at(key)} = {shown(value)}; a finite number is needed.")
    elif isinstance(value, str):
        if "text" in accepted:
            return value
    elif isinstance(value, list):
        if "list" in accepted:
            return [convert(item, accepted["list"], place, f"{key}[{i}]") for i, item in enumerate(value)]
        if "array" in accepted:
            return _numbers(value, place, key)
    elif isinstance(value, dict):
        if "distribution" in value and "prior" in accepted:
            return distribution(value, place.inside(key))
        if "link" in accepted:
            return _link(value, place.inside(key))
        if "path" in accepted:
            return _path(value, place.inside(key))
        if "table" in accepted:
            kind = accepted["table"]
            return value if kind is dict else construct(kind, value, place.inside(key))
    needed = " or ".join(dict.fromkeys(_WORDS[name] for name in accepted if name != "whole" or "number" not in accepted))
    raise ConfigError(f"{place.at(key)} = {shown(value)}; {needed or 'another value'} is needed.")


def _accepted(annotation: Any) -> dict[str, Any]:
    """Kinds of TOML values that suit an annotation, in the order of `_WORDS`; "list" and "table" with what is inside."""
    members = _members(annotation)
    if Any in members or inspect.Parameter.empty in members:
        return {"whole": None, "number": None, "text": None, "list": Any, "prior": None}
    # What stands for an array in NumPy and JAX takes complex numbers and truth values too; a config does not.
    if complex in members:
        table = {"table": dict} if any(typing.get_origin(member) is Mapping for member in members) else {}
        return {"number": None, "array": None, **table}
    found: dict[str, Any] = {}
    for member in members:
        origin = typing.get_origin(member) or member
        if member is bool:
            found["true"] = None
        elif member is int:
            found["whole"] = None
        elif member is float:
            found["number"] = None
        elif member is str or origin is os.PathLike:
            found["text"] = None
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            found["table"] = dict
        elif isinstance(origin, type) and issubclass(origin, Sequence | Iterable) and member is not bytes:
            found["list"] = (*typing.get_args(member), Any)[0]
        elif isinstance(member, type):
            from numpyro.distributions import Distribution

            from bayes_mfg.paths import Link, Path

            if issubclass(member, Distribution):
                found["prior"] = None
            elif issubclass(member, Link):
                found["link"] = None
            elif issubclass(member, Path):
                found["path"] = None
            elif dataclasses.is_dataclass(member):
                found["table"] = member
    return {name: found[name] for name in _WORDS if name in found}


def _members(annotation: Any) -> list[Any]:
    if isinstance(annotation, typing.TypeAliasType):
        return _members(annotation.__value__)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [inner for member in typing.get_args(annotation) for inner in _members(member)]
    return [annotation]


LARGEST_WHOLE, LARGEST_NUMBER = 2**53, sys.float_info.max
"""A whole number beyond the first is not exact in double precision; one beyond the second is infinite there."""


def _numbers(value: list[Any], place: Place, key: str) -> list[Any]:
    out: list[Any] = []
    for i, item in enumerate(value):
        if isinstance(item, list):
            out.append(_numbers(item, place, f"{key}[{i}]"))
        elif isinstance(item, int | float) and not isinstance(item, bool) and abs(item) <= LARGEST_NUMBER:
            out.append(float(item))
        else:
            raise ConfigError(f"{place.at(f'{key}[{i}]')} = {shown(item)}; a finite number is needed.")
    if len({len(item) if isinstance(item, list) else None for item in out}) > 1:
        raise ConfigError(f"{place.at(key)} = {shown(value)}; numbers, or lists of equal lengths, are needed.")
    return out


def _link(value: dict[str, Any], place: Place) -> Any:
    from bayes_mfg import paths

    links = {
        name: kind
        for name in paths.__all__
        if isinstance(kind := getattr(paths, name), type) and issubclass(kind, paths.Link) and not inspect.isabstract(kind)
    }
    if "kind" not in value:
        raise ConfigError(f"{place} needs the key 'kind'; it is one of {', '.join(links)}.")
    name = choose(value["kind"], links, place.at("kind"))
    return construct(links[name], value, place, also=["kind"])


def _path(value: dict[str, Any], place: Place) -> Any:
    from bayes_mfg.paths import FAMILIES

    if "family" not in value:
        raise ConfigError(f"{place} needs the key 'family'; it is one of {', '.join(FAMILIES)}.")
    name = choose(value["family"], FAMILIES, place.at("family"))
    return construct(FAMILIES[name], value, place, also=["family"])


def distribution(table: Mapping[str, Any], place: Place) -> Any:
    """A NumPyro distribution from `{distribution = "Name", argument = number, ...}`.

    Accepted are the classes of `numpyro.distributions` that are made from numbers alone, and its `Truncated...` functions.

    Raises
    ------
    ConfigError : for an unknown distribution or argument, and for arguments that it does not take (a negative scale, an empty
        interval).
    """
    import jax.numpy as jnp
    import numpy as np
    import numpyro.distributions as dist

    kinds = {name: kind for name in dist.__all__ if _made_from_numbers(name, kind := getattr(dist, name))}
    name = table.get("distribution")
    if not (isinstance(name, str) and name in kinds):
        raise ConfigError(
            f"{place.at('distribution')} = {shown(name)} is not known{_meant(name, kinds)}; it is a distribution of NumPyro"
            " such as Normal, LogNormal, HalfNormal, Gamma, Beta, Uniform or LogUniform."
        )
    kind = kinds[name]
    taken = [argument for argument in inspect.signature(kind).parameters if argument != "validate_args"]
    check_keys(table, ["distribution", *taken], place)
    numbers: dict[str, Any] = {}
    for argument, value in table.items():
        if argument == "distribution":
            continue
        if isinstance(value, list):
            number: Any = _numbers(value, place, argument)
        else:
            number = convert(value, float, place, argument)
        # Integers stay integers: some distributions count.
        numbers[argument] = value if isinstance(value, int) else jnp.asarray(number) if isinstance(number, list) else number
        constraint: Any = getattr(kind, "arg_constraints", {}).get(argument)
        free = constraint is None or isinstance(constraint, type(dist.constraints.dependent))
        if not free and not np.all(np.asarray(constraint(jnp.asarray(number)))):
            raise ConfigError(f"{place.at(argument)} = {shown(value)}; {name} needs it to be {_constraint(constraint)}.")
    try:
        made = kind(**numbers, validate_args=True)
    except (ValueError, TypeError, AttributeError, AssertionError) as error:
        raise ConfigError(f"{place} {name} cannot be made from {', '.join(numbers) or 'nothing'}: {error}") from error
    low, high = (getattr(made.support, end, None) for end in ("lower_bound", "upper_bound"))
    if low is not None and high is not None and not np.all(np.asarray(low) < np.asarray(high)):
        raise ConfigError(f"{place} {name} has the empty interval from {float(np.max(low)):g} to {float(np.min(high)):g}.")
    return made


def _constraint(constraint: Any) -> str:
    """A NumPyro constraint in words."""
    text = str(constraint)
    return {"Positive(lower_bound=0.0)": "positive", "Real()": "a real number"}.get(text, f"{text[:1].lower()}{text[1:]}")


def _made_from_numbers(name: str, kind: Any) -> bool:
    from numpyro.distributions import Distribution

    if not isinstance(kind, type):
        return name.startswith("Truncated") and "base_dist" not in inspect.signature(kind).parameters
    constraints = getattr(kind, "arg_constraints", {})
    if not issubclass(kind, Distribution) or not constraints:
        return False
    needed = [p.name for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
    return all(argument in constraints for argument in needed)
