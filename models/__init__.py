"""NumPyro models: observation models, initial populations, and the calibration model."""

from .calibration import Calibration, Data, ForwardModel, Trajectories, describe
from .initial import INITIALS, FirstObserved, Initial, Known, Seeded, Started, UnknownShares
from .neural_ode import NeuralODE
from .observations import (
    OBSERVATIONS,
    BetaBinomial,
    Binomial,
    Dirichlet,
    DirichletMultinomial,
    Gaussian,
    Multinomial,
    Observation,
    Record,
    SimplexGaussian,
)

__all__ = [
    "INITIALS",
    "OBSERVATIONS",
    "BetaBinomial",
    "Binomial",
    "Calibration",
    "Data",
    "Dirichlet",
    "DirichletMultinomial",
    "FirstObserved",
    "ForwardModel",
    "Gaussian",
    "Initial",
    "Known",
    "Multinomial",
    "NeuralODE",
    "Observation",
    "Record",
    "Seeded",
    "SimplexGaussian",
    "Started",
    "Trajectories",
    "UnknownShares",
    "describe",
]
