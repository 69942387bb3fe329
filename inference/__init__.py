"""Inference: point estimates, variational inference and NUTS on calibration models, and what is made of them."""

from bayes_mfg.inference.errors import FitError
from bayes_mfg.inference.fit import fit
from bayes_mfg.inference.point import Mode, find_mode
from bayes_mfg.inference.predict import predict
from bayes_mfg.inference.report import write_report
from bayes_mfg.inference.result import Fit, load

__all__ = ["Fit", "FitError", "Mode", "find_mode", "fit", "load", "predict", "write_report"]
