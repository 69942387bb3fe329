"""Equilibria of finite-state mean field games: grids, time schemes, solvers, exact derivatives."""

from bayes_mfg.equilibrium.exploitability import exploitability
from bayes_mfg.equilibrium.grid import TimeGrid
from bayes_mfg.equilibrium.schemes import ExponentialMidpoint, Paper, Scheme
from bayes_mfg.equilibrium.solve import Equilibrium, solve
from bayes_mfg.equilibrium.status import Code, Status

__all__ = ["Code", "Equilibrium", "ExponentialMidpoint", "Paper", "Scheme", "Status", "TimeGrid", "exploitability", "solve"]
