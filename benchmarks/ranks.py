"""How many directions of gamma(t) the populations of the linear-quadratic game see at all: ranks of dmu/dgamma(t), settings of arXiv 2606.23155.

    python -m benchmarks.ranks

T = 2, N = 100, one trajectory from shares in proportion to 1, ..., d; gamma at each of the 100 grid points against all shares at these. A row of
JSON for each d, time scheme and gamma: the largest singular value, and the numbers of those above 10 % and 1 % of it; nulls where there is no
equilibrium.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from bayes_mfg.equilibrium import TimeGrid, solve
from bayes_mfg.games import LinearQuadratic

POINTS, HORIZON = 100, 2.0


def main() -> None:
    """Print the rows."""
    jax.config.update("jax_enable_x64", True)
    grid = TimeGrid(HORIZON, POINTS)
    times = np.asarray(grid.times)
    gammas = {name: np.full(POINTS, float(name)) for name in ("0.5", "1", "1.55", "3")}
    gammas["arc"] = 0.1 + 2.9 * times * (HORIZON - times)
    for d in (3, 10):
        game, start = LinearQuadratic(d), np.arange(1.0, d + 1.0) / (d * (d + 1) / 2)
        for scheme in ("paper", "exponential"):
            slopes = jax.jit(
                jax.jacfwd(lambda g, game=game, mu0=start, s=scheme: solve(game, {"gamma": g}, mu0, grid, scheme=s).mu)
            )
            for name, gamma in gammas.items():
                matrix = np.asarray(slopes(jnp.asarray(gamma))).reshape(-1, POINTS)
                row: dict[str, object] = {
                    "d": d,
                    "scheme": scheme,
                    "gamma": name,
                    "largest": None,
                    "above 10 %": None,
                    "above 1 %": None,
                }
                if np.isfinite(matrix).all():
                    values = np.linalg.svd(matrix, compute_uv=False)
                    counts = [int(np.sum(values > share * values[0])) for share in (0.1, 0.01)]
                    row |= {"largest": float(values[0]), "above 10 %": counts[0], "above 1 %": counts[1]}
                sys.stdout.write(json.dumps(row) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
