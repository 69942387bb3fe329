"""The two point estimates beside each other: the posterior mode ("map") and the paper's network ("paper"), on the paper's data without noise.

    python -m benchmarks.point
    python -m benchmarks.point --case arc --epochs 200

In one process, one after the other, for linear-quadratic games with constant gamma, with the arc, and under a social planner: the network of
arXiv 2606.23155 is trained for `--epochs` epochs with its windows and minibatches and a tenth of the data held out, and its loss is that of its
best checkpoint over all training trajectories and times (mean of the summed squared error of mu). Then the mode of the posterior under this
library's priors is sought: to the end ("end"), and with at most 1, 2, 3, ... iterations until its loss is no more than the network's ("reach": the
time of a search that knows when to stop). Both fits know the initial populations; the mode is told whether gamma is constant or a path of time, the
network is not. Times are without compiling, of second runs, of the searches medians of three; those of first runs, with compiling, stand beside
them. The network's time is given for all epochs and, in proportion, for those up to its best checkpoint. One row of JSON each.
"""

import argparse
import json
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayes_mfg.inference import find_mode
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.paper import fit_paper
from bayes_mfg.inference.point import Mode
from bayes_mfg.models import Calibration
from bayes_mfg.reproduce import benchmark, training_model

LIMIT = 50
"""At most so many iterations of the search are tried."""

CASES = {"constant": ("lq", "constant"), "arc": ("lq", "arc"), "mfc": ("mfc", "constant")}


def loss_of(model: Calibration) -> Any:
    """Compiled `flat (size,) -> ` mean over trajectories and times of the summed squared error of mu."""
    space = coordinates(model)
    seen = jnp.asarray(model.population.shares)

    @jax.jit
    def loss(flat: Any) -> Any:
        mu = model.trajectories(space.latents(space.constrain(flat), model.data), model.data).mu[:, model.data_index]
        return jnp.mean(jnp.sum((mu - seen) ** 2, axis=-1))

    return lambda flat: float(loss(jnp.asarray(flat)))


def timed(run: Any) -> tuple[Any, float]:
    """What a function returns, and its seconds."""
    begin = time.perf_counter()
    found = run()
    return found, time.perf_counter() - begin


def median_seconds(run: Any) -> float:
    """Median seconds of three runs."""
    return statistics.median(timed(run)[1] for _ in range(3))


def compare(case: str, epochs: int, trajectories: int | None) -> dict[str, Any]:
    """Both fits of one case."""
    chosen = benchmark(*CASES[case])
    network, mode = (training_model(chosen, method, trajectories=trajectories) for method in ("paper", "point"))
    options: dict[str, Any] = {"epochs": epochs, "learning_rate": 5e-3, "patience": None, "progress": False}
    # First with compiling, then without: what is compiled stays with the model.
    paper, paper_first = timed(lambda: fit_paper(network, **options))
    _, paper_seconds = timed(lambda: fit_paper(network, **options))
    best = int(np.nanargmin(paper.checks[paper.best])) + 1
    paper_loss = loss_of(network)(paper.location)
    if not np.isfinite(paper_loss):
        raise RuntimeError(
            f"{case}: the network's best checkpoint has no equilibrium on some training trajectory; there is nothing to reach."
        )
    found, map_first = timed(lambda: find_mode(mode, progress=False, starts=1))
    end_seconds = median_seconds(lambda: find_mode(mode, progress=False, starts=1))
    loss = loss_of(mode)
    # A search of few unknowns refines its end whatever the limit, so that one to the end may be the fastest.
    ended = loss(found.location) <= paper_loss
    reached = {"max_steps": None, "gradients": found.evaluations, "seconds": end_seconds} if ended else None
    for limit in range(1, LIMIT + 1):

        def search(limit: int = limit) -> Mode:
            return find_mode(mode, progress=False, starts=1, max_steps=limit, curvature=False)

        if loss((early := search()).location) <= paper_loss:
            seconds = median_seconds(search)
            if reached is None or seconds < reached["seconds"]:
                reached = {"max_steps": limit, "gradients": early.evaluations, "seconds": seconds}
            break
    return {
        "case": case,
        "trajectories": len(network.population.trajectories),
        "epochs": epochs,
        "best_epoch": best,
        "paper_loss": paper_loss,
        "map_loss_at_end": loss(found.location),
        "reach": reached,
        "ratio_to_reach": reached and paper_seconds / reached["seconds"],
        "ratio_to_reach_from_best_epoch": reached and paper_seconds * best / epochs / reached["seconds"],
        "paper_seconds": paper_seconds,
        "map_seconds_to_end": end_seconds,
        "ratio_to_end": paper_seconds / end_seconds,
        "paper_seconds_with_compiling": paper_first,
        "map_seconds_to_end_with_compiling": map_first,
        "ratio_to_end_with_compiling": paper_first / map_first,
    }


def main() -> int:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(CASES), help="one of the cases (default: all)")
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--trajectories", type=int, help="training trajectories (default: the paper's number)")
    options = parser.parse_args()
    for case in CASES if options.case is None else (options.case,):
        print(json.dumps(compare(case, options.epochs, options.trajectories)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
