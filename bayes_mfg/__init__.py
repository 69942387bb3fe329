"""Bayesian calibration of finite-state mean field games.

The rooms are imported on first use: `bm.games`, `bm.equilibrium`, `bm.paths`, `bm.data`, `bm.models`, `bm.inference`.
"""

import importlib
from importlib.metadata import version as _version
from types import ModuleType

__version__ = _version("bayes-mfg")

_ROOMS = ("config", "data", "equilibrium", "errors", "games", "inference", "models", "paths", "reproduce")

__all__ = [*_ROOMS, "__version__"]


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"bayes_mfg.{name}")
    raise AttributeError(f"module 'bayes_mfg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
