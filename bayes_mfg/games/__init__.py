"""Finite-state mean field games: the interface and the built-in games."""

from bayes_mfg.games.base import Game, Parameter
from bayes_mfg.games.linear_quadratic import LinearQuadratic
from bayes_mfg.games.sir import SIR

__all__ = ["SIR", "Game", "LinearQuadratic", "Parameter"]
