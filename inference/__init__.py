"""Inference: point estimates, variational inference and NUTS on calibration models, and what is made of them."""

from .errors import FitError
from .fit import fit
from .last_layer import last_layer
from .point import Mode, find_mode
from .predict import predict
from .report import write_report
from .result import Fit, load
from .scores import crps_of_draws, scores

__all__ = [
    "Fit",
    "FitError",
    "Mode",
    "crps_of_draws",
    "find_mode",
    "fit",
    "last_layer",
    "load",
    "predict",
    "scores",
    "write_report",
]
