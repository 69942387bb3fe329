"""How many directions of gamma(t) the populations of the linear-quadratic game see at all: ranks of dmu/dgamma(t), settings of arXiv 2606.23155.

    python -m benchmarks.ranks
    python -m benchmarks.ranks --wide

T = 2, N = 100, one trajectory from shares in proportion to 1, ..., d; gamma at each of the 100 grid points against all shares at these. A row of
JSON for each d, time scheme and gamma: the largest singular value, and the numbers of those above 10 % and 1 % of it; nulls where there is no
equilibrium. `--wide` has more constants from 0.2 to 3, waves around 1, the settings of mean field control with a planner and with a game, one and
ten trajectories from random shares (Dirichlet(1, ..., 1), seed 0).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayes_mfg.equilibrium import TimeGrid, solve
from bayes_mfg.games import LinearQuadratic

POINTS, HORIZON = 100, 2.0
NARROW = (0.5, 1.0, 1.55, 3.0)
WIDE = (0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1, 1.2, 1.3, 1.55, 2.0, 3.0)
WAVES = (0.2, 0.3, 0.4, 0.5)
PLANNED: dict[str, Any] = {
    "terminal_slope": 0.0,
    "congestion": 2.0,
    "congestion_power": 2,
    "terminal_congestion": 0.0,
    "base_rate": 0.3,
}
"""Settings of the paper's mean field control, whose horizon is 1."""


def rows(
    about: dict[str, Any],
    game: LinearQuadratic,
    starts: dict[str, np.ndarray],
    horizon: float,
    control: bool,
    levels: Sequence[float],
    waves: Sequence[float] = (),
) -> None:
    """Print a row for each scheme, set of starts and gamma."""
    grid = TimeGrid(horizon, POINTS)
    times = np.asarray(grid.times)
    gammas = {f"{level:g}": np.full(POINTS, level) for level in levels}
    gammas["arc"] = 0.1 + 2.9 * (4 / horizon**2) * times * (horizon - times)
    gammas |= {f"1 + {a:g} sin(pi t)": 1.0 + a * np.sin(np.pi * times) for a in waves}
    for scheme in ("paper", "exponential"):
        slopes = jax.jit(jax.jacfwd(lambda g, m, s=scheme: solve(game, {"gamma": g}, m, grid, scheme=s, control=control).mu))
        for start, shares in starts.items():
            for name, gamma in gammas.items():
                matrix = np.concatenate([np.asarray(slopes(jnp.asarray(gamma), m)).reshape(-1, POINTS) for m in shares])
                found: dict[str, Any] = {"largest": None, "above 10 %": None, "above 1 %": None}
                if np.isfinite(matrix).all():
                    values = np.linalg.svd(matrix, compute_uv=False)
                    counts = [int(np.sum(values > share * values[0])) for share in (0.1, 0.01)]
                    found = {"largest": float(values[0]), "above 10 %": counts[0], "above 1 %": counts[1]}
                print(json.dumps(about | {"scheme": scheme, "starts": start, "gamma": name} | found), flush=True)


def main() -> int:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wide", action="store_true", help="more gammas, more starts, the settings of mean field control")
    options = parser.parse_args()
    for d in (3, 10):
        even = {"1 to d": np.arange(1.0, d + 1.0)[None] / (d * (d + 1) / 2)}
        if not options.wide:
            rows({"d": d, "settings": "game"}, LinearQuadratic(d), even, HORIZON, False, NARROW)
            continue
        drawn = np.random.default_rng(0).dirichlet(np.ones(d), 10)
        starts = even | {"random": drawn[:1], "ten random": drawn}
        rows({"d": d, "settings": "game"}, LinearQuadratic(d), starts, HORIZON, False, WIDE, WAVES)
        for name, control in (("control", True), ("control's, as a game", False)):
            rows({"d": d, "settings": name}, LinearQuadratic(d, **PLANNED), starts, 1.0, control, NARROW)
    return 0


if __name__ == "__main__":
    sys.exit(main())
