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
from collections.abc import Callable, Sequence
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


def slopes(
    game: LinearQuadratic, horizon: float = HORIZON, scheme: str = "paper", control: bool = False
) -> Callable[..., jax.Array]:
    """Compiled `(gamma (100,), mu0 (d,)) -> dmu/dgamma (100, d, 100)`."""
    grid = TimeGrid(horizon, POINTS)
    return jax.jit(jax.jacfwd(lambda g, m: solve(game, {"gamma": g}, m, grid, scheme=scheme, control=control).mu))


def wave(amplitude: float, horizon: float = HORIZON) -> np.ndarray:
    """`1 + amplitude sin(pi t)` on the grid, `(100,)`."""
    return np.asarray(1.0 + amplitude * np.sin(np.pi * np.asarray(TimeGrid(horizon, POINTS).times)))


def counted(matrix: np.ndarray) -> dict[str, Any]:
    """The largest singular value, and how many are above 10 % and 1 % of it; None where there is no equilibrium."""
    if not np.isfinite(matrix).all():
        return {"largest": None, "above 10 %": None, "above 1 %": None}
    values = np.linalg.svd(matrix.reshape(-1, POINTS), compute_uv=False)
    return {"largest": float(values[0])} | {
        f"above {share:.0%}".replace("%", " %"): int(np.sum(values > share * values[0])) for share in (0.1, 0.01)
    }


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
    times = np.asarray(TimeGrid(horizon, POINTS).times)
    gammas = {f"{level:g}": np.full(POINTS, level) for level in levels}
    gammas["arc"] = 0.1 + 2.9 * (4 / horizon**2) * times * (horizon - times)
    gammas |= {f"1 + {a:g} sin(pi t)": wave(a, horizon) for a in waves}
    for scheme in ("paper", "exponential"):
        derivative = slopes(game, horizon, scheme, control)
        for start, shares in starts.items():
            for name, gamma in gammas.items():
                found = counted(np.stack([np.asarray(derivative(jnp.asarray(gamma), m)) for m in shares]))
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
            rows({"d": d, "settings": "game"}, LinearQuadratic(d), even, HORIZON, False, NARROW, (0.3,))
            continue
        drawn = np.random.default_rng(0).dirichlet(np.ones(d), 10)
        starts = even | {"random": drawn[:1], "ten random": drawn}
        rows({"d": d, "settings": "game"}, LinearQuadratic(d), starts, HORIZON, False, WIDE, WAVES)
        for name, control in (("control", True), ("control's, as a game", False)):
            rows({"d": d, "settings": name}, LinearQuadratic(d, **PLANNED), starts, 1.0, control, NARROW)
    return 0


if __name__ == "__main__":
    sys.exit(main())
