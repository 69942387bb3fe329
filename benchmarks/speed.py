"""What posteriors cost: gradients against forward solves, and NUTS against NumPyro's own with its default settings.

    python -m benchmarks.speed gradient
    python -m benchmarks.speed gradient --states 32
    python -m benchmarks.speed nuts
    python -m benchmarks.speed both --warmup 100 --accept 0.65 --depth 3 --samples 50

The model is that of `python -m benchmarks.coverage arc`: the linear-quadratic game, gamma(t) an arc, ten trajectories of 51 times, Dirichlet noise
1e-3 that the fit does not know, unknown initial populations, gamma(t) a Gaussian process; 100 solver steps. Compiling is timed apart.

`gradient` times the solves of all ten trajectories, the log posterior, and the log posterior with its gradient, taking turns, at the mode; with more
states than three (`--states`) at the prior draw of seed 0.

`nuts` samples as `fit(..., num_chains=4, num_samples=500)` does, with warm-up, target acceptance and largest tree depth as given; `default` runs
NumPyro's `MCMC(NUTS(model))` from the same mode, in the model's own coordinates, one chain, with fewer transitions: they are dear. `both` does one
after the other. The figure to compare is leapfrog steps (gradients) per effective draw after warm-up, of the worst of gamma(t) at every time, noise
and initial shares.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpyro.infer import MCMC, NUTS, init_to_value

import bayes_mfg as bm
from bayes_mfg.inference.assemble import derived
from bayes_mfg.inference.coordinates import coordinates, potential, value_and_gradient
from bayes_mfg.inference.nuts import sample
from bayes_mfg.inference.point import find_mode

from .coverage import data_set, model_of

CHAINS, DRAWS, WARMUP = 4, 500, 300


def seconds(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each function, taking turns."""
    for function in functions.values():
        jax.block_until_ready(function())
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            begin = time.perf_counter()
            jax.block_until_ready(function())
            taken[name].append(time.perf_counter() - begin)
    return {name: float(np.median(times)) for name, times in taken.items()}


def gradient(model: bm.models.Calibration) -> None:
    """Ratio of a gradient to a forward solve."""
    space = coordinates(model)
    small = model.population.n_states == 3
    flat = jnp.asarray(find_mode(model, starts=1).location) if small else space.unconstrain(space.draw_prior(jax.random.key(0)))
    forward = jax.jit(lambda x, data: model.trajectories(space.latents(space.constrain(x), data), data).mu)
    both = value_and_gradient(model)
    found = seconds(
        {
            "solve": lambda: forward(flat, model.data),
            "potential": lambda: potential(model)(flat, model.data),
            "gradient": lambda: both(flat, model.data),
        },
        rounds=200 if small else 10,
    )
    print(f"potential with gradient / solve {found['gradient'] / found['solve']:.2f}")
    print(f"potential with gradient / potential {found['gradient'] / found['potential']:.2f}")
    print({name: f"{1e3 * value:.2f} ms" for name, value in found.items()})


def worst(model: bm.models.Calibration, flat: np.ndarray) -> tuple[float, float, str]:
    """Largest R-hat, and the smallest bulk ESS with its name, over gamma at every time, noise and initial shares."""
    implied = derived(model, flat.reshape(-1, flat.shape[-1]), 0)
    parts = {
        name: implied[name].reshape(*flat.shape[:2], *implied[name].shape[1:]) for name in ("parameter/gamma", "own/noise", "mu0")
    }
    data = xr.Dataset({name: (("chain", "draw", *(f"{name}_{k}" for k in range(x.ndim - 2))), x) for name, x in parts.items()})
    ess, r_hat = az.ess(data), az.rhat(data)
    least = min(parts, key=lambda name: float(ess[name].min()))
    return max(float(r_hat[name].max()) for name in parts), float(ess[least].min()), least


def ours(model: bm.models.Calibration, warmup: int, accept: float, depth: int) -> float:
    """Gradients per effective draw of the package's sampler."""
    begin = time.perf_counter()
    mode = find_mode(model, starts=1)
    print(f"mode {time.perf_counter() - begin:.1f} s with compiling", flush=True)
    options = {
        "num_chains": CHAINS,
        "num_warmup": warmup,
        "num_samples": DRAWS,
        "target_accept_prob": accept,
        "max_tree_depth": depth,
    }
    taken = []
    for seed in (1, 0):
        begin = time.perf_counter()
        draws = sample(model, mode, seed=seed, **options)
        taken.append(time.perf_counter() - begin)
    steps = int(draws.stats["n_steps"].sum())
    r_hat, ess, name = worst(model, draws.flat)
    print(f"NUTS {taken[0]:.1f} s with compiling, {taken[1]:.1f} s again ({draws.chain_method})")
    print(
        f"warm-up of {warmup}, target_accept_prob {accept:g}, max_tree_depth {depth}; step sizes {np.round(draws.stats['step_size'][:, -1], 2)}"
    )
    print(
        f"{CHAINS} x {DRAWS} draws: R-hat {r_hat:.4f}, ESS {ess:.0f} ({name}), divergences {int(draws.stats['diverging'].sum())}"
    )
    print(
        f"gradients per effective draw {steps / ess:.1f}; {steps / draws.flat[..., 0].size:.1f} per draw; {draws.warmup_steps} in warm-up"
    )
    return steps / ess


def default(model: bm.models.Calibration, warmup: int, samples: int) -> tuple[float, float]:
    """Gradients per effective draw of NumPyro's sampler as it comes, and per draw."""
    space = coordinates(model)
    mode = find_mode(model, starts=1)
    sites = {name: np.asarray(value) for name, value in space.constrain(jnp.asarray(mode.location)).items()}
    kernel = NUTS(model, init_strategy=init_to_value(values=sites))
    chain = MCMC(kernel, num_warmup=warmup, num_samples=samples, num_chains=1, progress_bar=False)
    begin = time.perf_counter()
    chain.warmup(jax.random.key(0), model.data, extra_fields=("num_steps",), collect_warmup=True)
    before = int(np.sum(chain.get_extra_fields()["num_steps"]))
    print(f"warm-up of {warmup}: {before} gradients, {time.perf_counter() - begin:.0f} s with compiling", flush=True)
    begin = time.perf_counter()
    chain.run(jax.random.key(1), model.data, extra_fields=("num_steps",))
    jax.block_until_ready(chain.get_samples())
    taken = time.perf_counter() - begin
    flat = np.asarray(jax.vmap(space.unconstrain)({name: chain.get_samples()[name] for name in space.shapes}))
    steps = int(np.sum(chain.get_extra_fields()["num_steps"]))
    r_hat, ess, name = worst(model, flat[None])
    print(f"one chain of {samples} draws: {taken:.0f} s, R-hat {r_hat:.3f}, ESS {ess:.0f} ({name})")
    print(f"gradients per effective draw {steps / ess:.1f}; {steps / samples:.1f} per draw")
    return steps / ess, steps / samples


def main() -> int:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["gradient", "nuts", "default", "both"])
    parser.add_argument("--warmup", type=int, default=WARMUP, help="transitions, of either sampler")
    parser.add_argument("--accept", type=float, default=0.8, help="target acceptance of `nuts`")
    parser.add_argument("--depth", type=int, default=10, help="largest tree depth of `nuts`")
    parser.add_argument("--samples", type=int, default=200, help="of `default`")
    parser.add_argument("--states", type=int, default=3, help="of `gradient`")
    options = parser.parse_args()
    population, _ = data_set("arc", 0, states=options.states if options.what == "gradient" else 3)
    model = model_of("arc", population)
    match options.what:
        case "gradient":
            gradient(model)
        case "nuts":
            ours(model, options.warmup, options.accept, options.depth)
        case "default":
            default(model, options.warmup, options.samples)
        case _:
            mine = ours(model, options.warmup, options.accept, options.depth)
            effective, each = default(model, options.warmup, options.samples)
            print(
                f"NumPyro's default over this: {effective / mine:.0f}; {each / mine:.0f} if each of its draws counted as independent"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
