"""Protects `contraction`: prior against posterior after a fit, against closed forms and against what `identifiability` foretells."""

import functools

import numpy as np
import pytest
from linear_model import Linear, population, posterior

import bayes_mfg as bm
from bayes_mfg.errors import InputError
from bayes_mfg.inference import contraction, identifiability


@functools.cache
def fitted():
    """Two constants with standard normal priors and a known posterior."""
    return bm.inference.fit(
        Linear(population()), method="nuts", num_chains=2, num_warmup=300, num_samples=1000, seed=0, starts=1, prior_samples=2000
    )


def test_contraction_is_that_of_the_closed_form():
    """2,000 draws before and after: a ratio of sds has an error of 2.2 %, a correlation one of 0.023; checked at 5 of these and more."""
    found = contraction(fitted())
    _, covariance = posterior(population())
    sds = np.sqrt(np.diag(covariance))
    for name, sd in zip(("a", "b"), sds, strict=True):
        assert float(found.ratio[name][0]) == pytest.approx(sd, rel=0.2)
        assert float(found.contraction[name][0]) == pytest.approx(1 - found.ratio[name][0])
    expected = covariance[0, 1] / np.prod(sds)
    assert float(found.correlations.loc["a", "b"]) == pytest.approx(expected, abs=0.12)
    from bayes_mfg.inference.report_stats import data_end, learning, quantities

    tree = fitted().tree
    report = {row.label: row for q in quantities(tree) for row in learning(q, data_end(tree))}
    for name in ("a", "b"):  # one definition, one verdict
        assert found.verdicts[name] == report[name].verdict
        assert found.table().loc[name, "contraction"] == pytest.approx(report[name].contraction, rel=1e-9)
    assert [sentence.split(";")[0] for sentence in found.sentences] == [f"{n}: {found.verdicts[n]}" for n in ("a", "b")]


def test_a_time_at_which_the_prior_knows_keeps_its_place(monkeypatch):
    """A path that starts at a known value: the first ratio is none, and the others stay at their times."""
    import dataclasses
    import importlib

    module = importlib.import_module("bayes_mfg.inference.contraction")
    rng = np.random.default_rng(0)

    def held(tree, most):
        some = module_quantities(tree)[0]
        times = np.arange(3.0)
        prior, after = (sd * rng.standard_normal((500, 1, 3)) * np.array([0.0, 1.0, 1.0]) + 1.0 for sd in (1.0, 0.1))
        return [dataclasses.replace(some, times=times, panels=[""], posterior=after, prior=prior, log=False)]

    module_quantities = module.quantities
    monkeypatch.setattr(module, "quantities", held)
    monkeypatch.setattr(module, "data_end", lambda tree: 2.0)
    monkeypatch.setattr(module, "LEAST_DRAWS", 10**9)
    found = module.contraction(fitted())
    (name,) = found.ratio
    assert found.times.tolist() == [0.0, 1.0, 2.0] and np.isnan(found.ratio[name][0])
    np.testing.assert_allclose(found.ratio[name][1:], 0.1, rtol=0.2)
    assert found.verdicts[name] == "informed by the data"


def test_power_scaling_is_large_where_the_prior_counts():
    """Against shares with a tenth of the noise, the same prior counts a tenth as much or less."""
    found = contraction(fitted())
    assert list(found.power.columns) == ["prior", "likelihood"] and (found.power["prior"] > 0.05).any()
    assert np.isfinite(found.power.to_numpy()).all()
    sharp = Linear(population(), observation=bm.models.Gaussian(scale=1e-3))
    strong = contraction(
        bm.inference.fit(
            sharp, method="nuts", num_chains=2, num_warmup=300, num_samples=1000, seed=0, starts=1, prior_samples=200
        )
    )
    for model, seen in ((Linear(population()), found), (sharp, strong)):
        foretold = identifiability(model, checked=0)
        for name in ("a", "b"):  # 200 to 2,000 draws of a prior: its sd is right to 5 %
            assert float(foretold.verdicts[name].ratio) == pytest.approx(float(seen.ratio[name][0]), rel=0.25)
    assert (strong.power["prior"] < 0.5 * found.power["prior"]).all()
    assert list(strong.verdicts.values()) == ["informed by the data"] * 2
    assert all("weight of the prior" not in sentence for sentence in strong.sentences)


def test_what_has_no_width_or_no_prior_is_refused():
    model = Linear(population())
    point = bm.inference.fit(model, method="point", starts=1)
    with pytest.raises(InputError, match="a point estimate has no width"):
        contraction(point)
    bare = bm.inference.fit(model, method="svi", guide="laplace", num_samples=100, starts=1, prior_samples=0)
    with pytest.raises(InputError, match="no draws of the prior"):
        contraction(bare)
    with pytest.raises(InputError, match="fit is int"):
        contraction(3)
