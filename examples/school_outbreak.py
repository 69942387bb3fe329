"""Fourteen days of influenza in a boarding school, 1978: contagion that may change, recovery, and what it is worth to the boys to keep away.

    python -m bayes_mfg.examples.school_outbreak --out school_outbreak.svg

The same as `bayes-mfg demo`, from Python. docs/examples.md says what to read from the figure.
"""

import argparse

import jax
import numpyro.distributions as dist

import bayes_mfg as bm


def fitted(num_warmup: int = 300, num_samples: int = 500, seed: int = 0) -> bm.inference.Fit:
    """A posterior by NUTS."""
    model = bm.models.Calibration(
        bm.games.SIR(infection_cost=1.0),  # the scale of costs: a common factor of all cannot be identified
        bm.data.load_school_influenza(),
        paths={
            "beta": bm.paths.GaussianProcess(length_scale=5.0),
            "recovery": dist.LogNormal(-0.9, 0.5),
            "contact_cost": bm.paths.Constant(),
        },
        observation=bm.models.BetaBinomial(states=["I"]),
        initial=bm.models.Seeded(seed="I", rest="S"),
        horizon=20.0,
    )
    options = {"num_warmup": num_warmup, "num_samples": num_samples, "target_accept_prob": 0.98}
    return bm.inference.fit(model, num_chains=4, seed=seed, **options)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="school_outbreak.svg")
    result = fitted()
    print(result.summary().to_string(), "\n".join(bm.inference.contraction(result).sentences), sep="\n")
    print(result.plot(parser.parse_args().out))
