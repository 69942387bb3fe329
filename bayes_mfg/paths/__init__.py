"""Parameter paths: priors over functions gamma(t, mu) for one game parameter."""

from .base import BoundPath, Conditional, Context, Path, PathFunction
from .compatibility import complete_numpyro
from .constant import Constant
from .gaussian_process import GaussianProcess
from .given import Given
from .links import Below, Bounded, Identity, Link, Positive, Softplus
from .neural import Body, Neural
from .pooled import Pooled, PooledPath
from .splines import PiecewiseConstant, RandomWalk, Spline

FAMILIES: dict[str, type[Path]] = {
    family.__name__: family for family in (Constant, PiecewiseConstant, RandomWalk, GaussianProcess, Spline, Neural)
}

complete_numpyro()

__all__ = [
    "FAMILIES",
    "Below",
    "Body",
    "BoundPath",
    "Bounded",
    "Conditional",
    "Constant",
    "Context",
    "GaussianProcess",
    "Given",
    "Identity",
    "Link",
    "Neural",
    "Path",
    "PathFunction",
    "PiecewiseConstant",
    "Pooled",
    "PooledPath",
    "Positive",
    "RandomWalk",
    "Softplus",
    "Spline",
]
