"""TOML files: reading them with messages that name the place, and writing them."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bayes_mfg.errors import ConfigError

from .values import Place, check_keys, shown, toml_key, toml_value


def read_toml(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """Text and content of a TOML file.

    Raises
    ------
    ConfigError : when the file is missing, is not text, or is not TOML; then with the line.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not text in UTF-8; a TOML file is needed.") from None
    except OSError as error:
        raise ConfigError(f"{path}: the file cannot be read ({error.strerror or error}).") from None
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}.") from None


def tables(
    content: Mapping[str, Any],
    names: Mapping[str, bool],
    place: Place,
    *,
    text: tuple[str, ...] = (),
    several: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The top-level tables of a config; absent ones are empty.

    Parameters
    ----------
    content : the file.
    names : table -> whether it must be there.
    place : the file.
    text : tables in whose place a text may stand.
    several : tables that may come any number of times, as [[name]]; lists of them, empty where there is none.

    Raises
    ------
    ConfigError : for an unknown or missing table, or something else where a table must be.
    """
    check_keys(content, names, place)
    for name, needed in names.items():
        if needed and name not in content:
            raise ConfigError(f"{place.file}: the table [{name}] is missing; a config has {', '.join(f'[{n}]' for n in names)}.")
        if name in several:
            value = content.get(name, [])
            if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
                raise ConfigError(f"{place.at(name)} = {shown(value)}; tables [[{name}]] are needed.")
            continue
        value = content.get(name, {})
        if not (isinstance(value, dict) or (isinstance(value, str) and name in text)):
            raise ConfigError(f"{place.at(name)} = {shown(value)}; a table [{name}] is needed.")
    return {name: content.get(name, [] if name in several else {}) for name in names}


def write_toml(content: Mapping[str, Any]) -> str:
    """TOML text of nested tables; tables below the second level are written inline."""
    lines = [f"{toml_key(key)} = {toml_value(value)}" for key, value in content.items() if not isinstance(value, dict)]
    for name, table in content.items():
        if not isinstance(table, dict):
            continue
        inner = {key: value for key, value in table.items() if isinstance(value, dict) and name in ("paths", "parameters")}
        plain = {key: value for key, value in table.items() if key not in inner}
        if plain or not inner:
            lines += ["", f"[{toml_key(name)}]", *(f"{toml_key(key)} = {toml_value(value)}" for key, value in plain.items())]
        for key, value in inner.items():
            lines += ["", f"[{toml_key(name)}.{toml_key(key)}]", *(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items())]
    return "\n".join(lines).lstrip("\n") + "\n"
