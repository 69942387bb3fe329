"""NumPyro models: observation models, initial populations, and the calibration model."""

from .calibration import Calibration, Data, Trajectories, describe
from .initial import INITIALS, FirstObserved, Initial, Known, Seeded, UnknownShares
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
    "Gaussian",
    "Initial",
    "Known",
    "Multinomial",
    "Observation",
    "Record",
    "Seeded",
    "Trajectories",
    "UnknownShares",
    "describe",
]
