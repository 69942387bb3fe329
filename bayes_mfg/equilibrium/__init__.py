"""Equilibria of finite-state mean field games: grids, time schemes, solvers, exact derivatives."""

from .exploitability import exploitability
from .grid import TimeGrid
from .problem import Sampled
from .schemes import ExponentialMidpoint, Paper, Scheme
from .several import Branch, enumerate, spectral_radius
from .solve import Equilibrium, solve
from .status import Code, Status

__all__ = [
    "Branch",
    "Code",
    "Equilibrium",
    "ExponentialMidpoint",
    "Paper",
    "Sampled",
    "Scheme",
    "Status",
    "TimeGrid",
    "enumerate",
    "exploitability",
    "solve",
    "spectral_radius",
]
