"""Finite-state mean field games: the interface and the built-in games."""

from .base import Game, Parameter
from .bike_share import BikeShare
from .closed import Closed
from .cybersecurity import Cybersecurity
from .el_farol import ElFarol
from .emissions import Emissions
from .forward_dynamics import ForwardDynamics
from .invariances import Invariance
from .linear_quadratic import LinearQuadratic
from .meeting_arrival import MeetingArrival
from .sir import SIR

__all__ = [
    "SIR",
    "BikeShare",
    "Closed",
    "Cybersecurity",
    "ElFarol",
    "Emissions",
    "ForwardDynamics",
    "Game",
    "Invariance",
    "LinearQuadratic",
    "MeetingArrival",
    "Parameter",
]
