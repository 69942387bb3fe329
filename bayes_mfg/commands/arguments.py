"""Arguments that several commands share, and a first look at the config that one of them names."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bayes_mfg.config.files import read_toml

type Run = Callable[[argparse.Namespace, str], None]
"""What a command does with its options; the second argument is the command as it was typed."""

type Add = Callable[[str, Run, str], argparse.ArgumentParser]
"""Declares a command by its name, what it does, and its line of help; gives the parser of its arguments."""


def add_config(parser: argparse.ArgumentParser) -> None:
    """The config of a calibration, and another data file for it."""
    parser.add_argument("config", metavar="CONFIG.toml")
    parser.add_argument("--data", metavar="PATH", help="data file, instead of the config's [data] path")


def glance(path: str) -> None:
    """Say at once, before JAX is imported, that a config is missing or no TOML; a pipe can only be read once."""
    if not Path(path).is_fifo():
        read_toml(path)


def progress(options: argparse.Namespace) -> Any:
    """Whether progress is shown: on a terminal only, and never with `--quiet`."""
    return False if options.quiet else None
