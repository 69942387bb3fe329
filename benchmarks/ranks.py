"""How many directions of gamma(t) the populations of the linear-quadratic game see at all: ranks of dmu/dgamma(t), settings of arXiv 2606.23155.

    python -m benchmarks.ranks

T = 2, N = 100, one trajectory from shares in proportion to 1, ..., d; gamma at each of the 100 grid points against all shares at these. A row of
JSON for each d, time scheme and gamma: the largest singular value, and the numbers of those above 10 % and 1 % of it.
"""

import json
import sys

import jax
import numpy as np

from bayes_mfg.data import Population
from bayes_mfg.games import LinearQuadratic
from bayes_mfg.inference import sensitivity
from bayes_mfg.models import Calibration, Dirichlet
from bayes_mfg.paths import PiecewiseConstant

POINTS, HORIZON = 100, 2.0


def main() -> None:
    """Print the rows."""
    jax.config.update("jax_enable_x64", True)
    times = np.linspace(0.0, HORIZON, POINTS)
    gammas = {"1.55": np.full(POINTS, 1.55), "3": np.full(POINTS, 3.0), "arc": 0.1 + 2.9 * times * (HORIZON - times)}
    for d in (3, 10):
        start = np.arange(1.0, d + 1.0) / (d * (d + 1) / 2)
        data = Population(times, proportions=np.tile(start, (POINTS, 1)))
        # As many pieces as grid points, so that any gamma on the grid can be the point.
        paths = {"gamma": PiecewiseConstant(knots=POINTS)}
        for scheme in ("paper", "exponential"):
            model = Calibration(LinearQuadratic(d), data, paths, Dirichlet(noise=1e-3), initial=start, substeps=1, scheme=scheme)
            for name, gamma in gammas.items():
                found = sensitivity(model, {"gamma": gamma})
                values = found.singular_values["gamma"]
                row = {"d": d, "scheme": scheme, "gamma": name, "largest": float(values[0])}
                row |= {f"above {share:g}": int(np.sum(values > share * values[0])) for share in (0.1, 0.01)}
                row["gamma off by"] = float(np.abs(found.paths["gamma"] - gamma).max())
                json.dump(row, sys.stdout)
                sys.stdout.write("\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
