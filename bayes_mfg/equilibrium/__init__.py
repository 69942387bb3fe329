"""Equilibria of finite-state mean field games: grids, time schemes, solvers, exact derivatives."""

from .conditioning import Conditioning, Monotonicity, conditioning, monotonicity
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
    "Conditioning",
    "Equilibrium",
    "ExponentialMidpoint",
    "Monotonicity",
    "Paper",
    "Sampled",
    "Scheme",
    "Status",
    "TimeGrid",
    "conditioning",
    "enumerate",
    "exploitability",
    "monotonicity",
    "solve",
    "spectral_radius",
]
