"""Inference: point estimates, variational inference and NUTS on calibration models, and what is made of them."""

from .baselines import Historical, Persistence
from .check_result import Check, load_check
from .checks import check
from .compare import compare
from .contraction import Contraction, contraction
from .design import design
from .design_candidates import Experiment, MeanOf, Observe, ShareOf, ValueOf, observations
from .design_result import Design
from .errors import FitError
from .fit import fit
from .forecast import energy_of_draws, forecast_scores, wis_of_draws
from .identifiability import identifiability
from .identifiability_prior import OverPrior, identifiability_over_prior
from .identifiability_result import Direction, Identifiability, Verdict
from .intervene import intervene
from .intervention_result import Intervention
from .interventions import Change, Close, Start
from .last_layer import last_layer
from .learned import LearnedPrior, learn_prior
from .leave_out import leave_future_out, loo
from .linear_widths import LinearWidths, linear_widths
from .many import Posteriors
from .movements import Flows, flows
from .origins import forecast_origins
from .parallel import processes
from .path_sensitivity import Sensitivity, sensitivity
from .point import Mode, find_mode
from .pointwise import log_likelihood
from .predict import predict
from .profile import profile, profiles
from .profile_quantity import Value
from .profile_result import ConfidenceSet, Profile
from .report import write_report
from .result import Fit, load
from .scores import crps_of_draws, scores
from .study import study
from .study_result import Study
from .uniqueness import Uniqueness, uniqueness

__all__ = [
    "Change",
    "Check",
    "Close",
    "ConfidenceSet",
    "Contraction",
    "Design",
    "Direction",
    "Experiment",
    "Fit",
    "FitError",
    "Flows",
    "Historical",
    "Identifiability",
    "Intervention",
    "LearnedPrior",
    "LinearWidths",
    "MeanOf",
    "Mode",
    "Observe",
    "OverPrior",
    "Persistence",
    "Posteriors",
    "Profile",
    "Sensitivity",
    "ShareOf",
    "Start",
    "Study",
    "Uniqueness",
    "Value",
    "ValueOf",
    "Verdict",
    "check",
    "compare",
    "contraction",
    "crps_of_draws",
    "design",
    "energy_of_draws",
    "find_mode",
    "fit",
    "flows",
    "forecast_origins",
    "forecast_scores",
    "identifiability",
    "identifiability_over_prior",
    "intervene",
    "last_layer",
    "learn_prior",
    "leave_future_out",
    "linear_widths",
    "load",
    "load_check",
    "log_likelihood",
    "loo",
    "observations",
    "predict",
    "processes",
    "profile",
    "profiles",
    "scores",
    "sensitivity",
    "study",
    "uniqueness",
    "wis_of_draws",
    "write_report",
]
