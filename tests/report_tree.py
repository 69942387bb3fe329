"""Help for tests of pages: a tree with the groups and attributes of a fit, made of random numbers."""

import json

import numpy as np
import xarray as xr


def make_tree(
    *, chains=4, draws=250, trajectories=("camp",), states=("S", "I", "R"), seen=("I",), observed=14, times=14, method="nuts"
):
    """A tree with the groups of a fit: a path `beta`, a constant `recovery`, and a number `concentration`."""
    rng = np.random.default_rng(7)
    t, R, d, K = np.arange(times, dtype=float), len(trajectories), len(states), 300

    def paths(n_chain, n_draw, spread):
        level = np.exp(np.log(1.7) + spread * rng.normal(size=(n_chain, n_draw, 1)))
        slope = 0.25 * spread * rng.normal(size=(n_chain, n_draw, 1))
        recovery = np.exp(np.log(0.45) + spread * rng.normal(size=(n_chain, n_draw, 1)))
        return level * np.exp(-0.3 * np.sin(t / 4) + slope * (t - 5) / 5), np.repeat(recovery, times, axis=-1)

    def dataset(n_chain, n_draw, spread):
        beta, recovery = paths(n_chain, n_draw, spread)
        hump = np.exp(-0.5 * ((t - 6.5 - 0.4 * (beta.mean(-1, keepdims=True) - 1.7)) / 2.2) ** 2)
        # The first state is a constant at time 0, as a known start is.
        shares = np.stack([1.0 - 0.9 * t / t[-1] + 0 * hump, *(0.4 * hump / (k + 1) for k in range(d - 1))], axis=-1)
        mu = np.repeat((shares / shares.sum(-1, keepdims=True))[:, :, None], R, axis=2)
        mu[:, :, :, 0] = np.eye(d)[0]
        value = (t[-1] - t)[:, None] * np.arange(d) * 0.2 * beta[:, :, None, :, None] + np.zeros((n_chain, n_draw, R, times, d))
        full = ("chain", "draw", "trajectory", "time", "state")
        return xr.Dataset(
            {
                "beta": (("chain", "draw", "time"), beta),
                "recovery": (("chain", "draw", "time"), recovery),
                "concentration": (("chain", "draw"), np.exp(3 + spread * rng.normal(size=(n_chain, n_draw)))),
                "mu": (full, mu),
                "value": (full, value),
            },
            {"time": t, "trajectory": list(trajectories), "state": list(states)},
        )

    posterior, prior = dataset(chains, draws, 0.06 if chains * draws > 1 else 0.0), dataset(1, K, 0.5)
    place = [states.index(s) for s in seen]

    def replicas(ds):
        mean = 763 * ds["mu"].isel(state=place)
        return xr.Dataset({"counts": rng.binomial(763, np.clip(mean / 763, 0, 1)) + 0 * mean})

    pp = replicas(posterior)
    data = pp["counts"].isel(chain=0, draw=0, time=slice(0, observed)).astype(float)
    data[0, min(3, observed - 1), 0] = np.nan
    stats = {
        "diverging": np.zeros((chains, draws), bool),
        "energy": rng.normal(size=(chains, draws)),
        "n_steps": rng.integers(3, 15, (chains, draws)),
        "acceptance_rate": rng.uniform(0.8, 1, (chains, draws)),
        "lp": rng.normal(size=(chains, draws)),
        "failed_solve": np.zeros((chains, draws), bool),
        "step_size": np.full((chains, draws), 0.31),
    }
    per_solve = ("chain", "draw", "trajectory")
    solver = xr.Dataset(
        {
            "residual": (per_solve, rng.uniform(1e-13, 1e-11, (chains, draws, R))),
            "iterations": (per_solve, rng.integers(3, 9, (chains, draws, R))),
            "status": (per_solve, np.zeros((chains, draws, R), int)),
        },
        attrs={"method": "automatic", "scheme": "midpoint", "tolerance": 1e-10, "substeps": 4, "intervals": 52},
    )
    tree = xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "prior": prior,
            "unconstrained_posterior": xr.Dataset({"beta_raw": (("chain", "draw", "k"), rng.normal(size=(chains, draws, 3)))}),
            "posterior_predictive": pp,
            "prior_predictive": replicas(prior),
            "observed_data": xr.Dataset({"counts": data}),
            "constant_data": xr.Dataset({"totals": (("trajectory", "time"), np.full((R, observed), 763.0))}),
            "sample_stats": xr.Dataset({name: (("chain", "draw"), values) for name, values in stats.items()}),
            "solver": solver,
        }
    )
    known = [
        {"name": "beta", "unit": "1/time", "description": "contagion rate at full contact", "lower": 0.0, "upper": None},
        {"name": "recovery", "unit": "1/time", "description": "recovery rate", "lower": 0.0, "upper": None},
    ]
    sizes = {"n_trajectories": R, "n_times": observed, "n_states": d}
    source = {"source": "British Medical Journal 1978, page 587", "url": "https://example.org/flu"}
    tree.attrs = {
        "title": "Influenza at a boarding school, 1978",
        "method": method,
        "seed": 0,
        "created": "2026-01-12T09:30:00+00:00",
        "wall_time_seconds": 93.4,
        "versions": json.dumps({"bayes-mfg": "0.1.0", "python": "3.12.4", "jax": "0.12.0"}),
        "game": json.dumps({"name": "SIR", "states": list(states), "parameters": known, "constants": {"infection_cost": 1.0}}),
        "paths": json.dumps({"beta": "beta: Gaussian process, length scale 5.", "recovery": "constant"}),
        "observation": "BetaBinomial(states=['I'])",
        "config": '[model]\ngame = "SIR"\n',
        "data": json.dumps(sizes | {"time_unit": "days", "provenance": source}),
        "inference": json.dumps({"num_chains": chains, "num_samples": draws, "num_warmup": 500, "chain_method": "sequential"}),
        "warnings": json.dumps([]),
    }
    return tree
