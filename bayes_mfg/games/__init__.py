"""Finite-state mean field games: the interface and the built-in games."""

from .base import Game, Parameter
from .linear_quadratic import LinearQuadratic
from .sir import SIR

__all__ = ["SIR", "Game", "LinearQuadratic", "Parameter"]
