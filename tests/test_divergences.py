"""Protects the telling apart of divergences and failed solves: what ended a transition, instability or a point without an equilibrium."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc import hmc

nuts = importlib.import_module("bayes_mfg.inference.nuts")
KEYS = 20


def judged(monkeypatch, cliff: float, edge: float) -> np.ndarray:
    """What is said of transitions on a flat density, begun at 0, that jumps by `cliff` at 1 and is not a number beyond `edge`."""

    def height(x):
        value = 0.005 * jnp.sum(x**2) + jnp.where(jnp.abs(x[0]) > 1.0, cliff, 0.0)
        return jnp.where(jnp.abs(x[0]) > edge, jnp.nan, value)

    monkeypatch.setattr(nuts, "_potential", lambda model: lambda *args: height)
    init, _ = hmc(potential_fn_gen=lambda *args: height, algo="NUTS")
    begin = init(jnp.zeros(2), num_warmup=0, step_size=0.3, adapt_step_size=False, model_args=(), rng_key=jax.random.key(0))
    adapted = jax.tree.map(lambda a: jnp.asarray(a)[None], begin.adapt_state)
    keys = jax.vmap(jax.random.key_data)(jax.random.split(jax.random.key(1), KEYS))
    kept = {
        "diverging": np.ones((1, KEYS), bool),
        "before/x": np.zeros((1, KEYS, 2)),
        "before/key": np.asarray(keys)[None],
    }
    return nuts._failed_solves(None, kept, adapted, (), 10)


def test_a_point_without_an_equilibrium_is_a_failed_solve(monkeypatch) -> None:
    assert judged(monkeypatch, cliff=0.0, edge=3.0).sum() >= KEYS // 2  # others turn before they come to it


def test_energy_that_was_off_before_is_a_divergence(monkeypatch) -> None:
    # Steps jump up a cliff that the momentum cannot pay for, by less than NumPyro calls a divergence, and walk on to the edge.
    assert not judged(monkeypatch, cliff=100.0, edge=3.0).any()


def test_where_no_solve_failed_there_is_none(monkeypatch) -> None:
    assert not judged(monkeypatch, cliff=0.0, edge=1e9).any()
