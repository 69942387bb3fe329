"""Parameter paths: priors over functions gamma(t, mu) for one game parameter."""

from bayes_mfg.paths.base import BoundPath, Conditional, Context, Path, PathFunction
from bayes_mfg.paths.constant import Constant
from bayes_mfg.paths.gaussian_process import GaussianProcess
from bayes_mfg.paths.links import Below, Bounded, Identity, Link, Positive, Softplus
from bayes_mfg.paths.neural import Neural
from bayes_mfg.paths.splines import PiecewiseConstant, RandomWalk, Spline

FAMILIES: dict[str, type[Path]] = {
    family.__name__: family for family in (Constant, PiecewiseConstant, RandomWalk, GaussianProcess, Spline, Neural)
}

__all__ = [
    "FAMILIES",
    "Below",
    "BoundPath",
    "Bounded",
    "Conditional",
    "Constant",
    "Context",
    "GaussianProcess",
    "Identity",
    "Link",
    "Neural",
    "Path",
    "PathFunction",
    "PiecewiseConstant",
    "Positive",
    "RandomWalk",
    "Softplus",
    "Spline",
]
