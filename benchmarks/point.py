"""The two point estimates beside each other: the posterior mode ("map") and the paper's network ("paper"), on the paper's data without noise.

    python -m benchmarks.point
    python -m benchmarks.point --case arc --epochs 200

In one process, one after the other, for linear-quadratic games with constant gamma, with the arc, and under a social planner: the network of
arXiv 2606.23155 is trained for `--epochs` epochs with its windows and minibatches, and the loss that it ends with is taken over all training
trajectories and times (mean of the summed squared error of mu). Then the mode of the posterior under this library's priors is sought
to the end, and its loss must be at most that one. Both fits know the initial populations. Times are given with compiling and without: those without
are of a second run with everything compiled. One row of JSON each.
"""

import argparse
import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayes_mfg.inference import find_mode
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.paper import fit_paper
from bayes_mfg.models import Calibration
from bayes_mfg.reproduce import benchmark, training_model

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


def compare(case: str, epochs: int, trajectories: int | None) -> dict[str, Any]:
    """Both fits of one case."""
    chosen = benchmark(*CASES[case])
    network, mode = (training_model(chosen, method, trajectories=trajectories) for method in ("paper", "point"))
    options: dict[str, Any] = {"epochs": epochs, "learning_rate": 5e-3, "patience": None, "progress": False}
    # First with compiling, then without: what is compiled stays with the model.
    paper, paper_first = timed(lambda: fit_paper(network, **options))
    _, paper_seconds = timed(lambda: fit_paper(network, **options))
    found, map_first = timed(lambda: find_mode(mode, progress=False, starts=1))
    _, map_seconds = timed(lambda: find_mode(mode, progress=False, starts=1))
    paper_loss, map_loss = loss_of(network)(paper.location), loss_of(mode)(found.location)
    return {
        "case": case,
        "trajectories": len(network.population.trajectories),
        "epochs": epochs,
        "paper_loss": paper_loss,
        "map_loss": map_loss,
        "paper_seconds": paper_seconds,
        "map_seconds": map_seconds,
        "ratio": paper_seconds / map_seconds,
        "paper_seconds_with_compiling": paper_first,
        "map_seconds_with_compiling": map_first,
        "ratio_with_compiling": paper_first / map_first,
        "map_evaluations": found.evaluations,
        "reached": bool(np.isfinite(map_loss) and map_loss <= paper_loss),
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
