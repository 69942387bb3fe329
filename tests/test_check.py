"""Protects simulation-based calibration: right samplers pass, wrong ones do not, and nothing is left out in silence."""

import concurrent.futures
import functools
import json
import re
import xml.etree.ElementTree as ET
from multiprocessing.reduction import ForkingPickler

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import samplers
import scipy.stats
from linear_model import Linear, population
from one_unknown import NOISE, STARTS, Fragile, calibration, simulated

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.games import LinearQuadratic
from bayes_mfg.inference import Check, FitError, check, load_check, processes, svi
from bayes_mfg.inference.checkpoint import Checkpoint
from bayes_mfg.inference.coordinates import potential
from bayes_mfg.inference.parallel import Parcel, fingerprint, travels
from bayes_mfg.inference.uniformity import band, covered, p_value, rank
from bayes_mfg.models import Calibration, Dirichlet, Multinomial
from bayes_mfg.paths import Constant

PRIOR = dist.LogNormal(0.0, 0.5)
"""Wider ones reach shares that are too small for floating point numbers."""


def small(game=None, **options):
    return calibration(simulated(noise="dirichlet", size=NOISE, seed=1), game, gamma=PRIOR, **options)


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def right(model):
    return check(model, samplers.exact, simulations=200, seed=0)


def test_false_alarms_come_as_often_as_stated():
    """Over 1,000 sets of uniform ranks; the probability of a false alarm of each assertion is below 1e-3."""
    rng = np.random.default_rng(0)
    for n, most in ((60, 99), (200, 19)):
        found = np.array([p_value(rng.integers(0, most + 1, n), most) for _ in range(1000)])
        for level in (0.01, 0.05, 0.2):
            # The statistic is discrete: a level may be kept with room to spare, and must not be exceeded.
            assert (found <= level).mean() <= level + 3.3 * np.sqrt(level * (1 - level) / 1000)
        assert (found <= 0.2).mean() > 0.1


def test_the_band_and_the_p_value_are_one_test():
    rng = np.random.default_rng(1)
    _, low, high = band(80, 19, 0.9)
    for _ in range(200):
        ranks = rng.binomial(19, rng.beta(1.2, 1.0, 80))
        reached = np.searchsorted(np.sort(ranks), np.arange(19), side="right") / 80
        inside = np.all((low - 1e-12 <= reached) & (reached <= high + 1e-12))
        assert inside == (p_value(ranks, 19) > 0.1)


def test_ranks_of_equal_values_are_spread():
    rng = np.random.default_rng(2)
    ranks = rank(np.zeros(2000), np.zeros((9, 2000)), rng)
    assert scipy.stats.chisquare(np.bincount(ranks, minlength=10)).pvalue > 1e-3
    assert rank(0.5, np.array([0.0, 0.4, 0.6]), rng) == 2


def test_coverage_of_uniform_ranks_is_nominal():
    ranks = np.arange(100)
    assert [covered(ranks, 99, level)[0] for level in (0.5, 0.8, 0.9)] == pytest.approx([0.5, 0.8, 0.9])
    assert covered(np.arange(10), 9, 0.5)[1] == pytest.approx(0.6)


def test_exact_draws_pass(right):
    """A false alarm of 1 %; draws too narrow by 30 % or beside the truth by half an sd are found in 99 of 100 runs of this size (see below)."""
    assert set(right.outcomes["outcome"]) == {"ranked"}
    assert list(right.ranks) == ["gamma", "log_likelihood"]
    assert right.uniform().all()
    table = right.table()
    assert (table["coverage90"] - 0.9).abs().max() < 3.3 * table["se90"].max()
    assert table["bias"].abs().max() < 3.3 / np.sqrt(200)
    assert not right.warnings


@pytest.mark.parametrize(("wrong", "quantity"), [("narrow", "gamma"), ("shifted", "gamma"), ("prior", "log_likelihood")])
def test_wrong_draws_do_not(model, wrong, quantity):
    found = check(model, getattr(samplers, wrong), simulations=200, seed=0)
    assert not found.uniform()[quantity]
    assert any(sentence.startswith(f"{quantity}: ranks are not uniform") for sentence in found.warnings)
    if wrong == "prior":
        assert found.uniform()["gamma"], "ranks of the unknown alone cannot see this"


def test_power_is_as_the_docstring_says():
    """Of normal draws around truths, as many are found out at 1 % as is said above and in test_a_reduced_study_of_nuts."""
    rng = np.random.default_rng(0)

    def found(n, factor, shift):
        ranks = (rank(rng.standard_normal(n), shift + factor * rng.standard_normal((99, n)), rng) for _ in range(200))
        return np.mean([p_value(r, 99) <= 0.01 for r in ranks])

    assert found(200, 0.7, 0.0) > 0.95
    assert found(200, 1.0, 0.5) > 0.95
    assert found(60, 0.6, 0.0) > 0.8
    assert found(60, 1.0, 0.5) > 0.7


def test_truths_without_equilibrium_are_an_outcome_and_leave_ranks_uniform():
    found = check(small(Fragile(2.0)), samplers.exact, simulations=200, seed=0)
    lost = (found.outcomes["outcome"] == "no equilibrium").sum()
    assert abs(lost / 200 - scipy.stats.norm.sf(2 * np.log(2.0))) < 0.08
    assert found.truth["gamma"].max() <= 2.0
    assert len(found.ranks) == 200 - lost
    assert found.uniform().all()
    assert f"{lost} of 200 simulations: no equilibrium." in found.warnings


def test_data_that_no_density_is_finite_for_are_an_outcome():
    noisy = small(observation=Dirichlet(noise=500.0))
    with pytest.raises(FitError, match="none of 5 simulations could be ranked; the first: data out of range"):
        check(noisy, samplers.exact, simulations=5)


def test_fits_that_fail_are_counted(model):
    found = check(model, samplers.sometimes, simulations=20, seed=0)
    failed = found.outcomes["outcome"].str.startswith("fit failed: no luck").sum()
    assert 0 < failed < 20
    assert len(found.ranks) == 20 - failed
    assert f"{failed} of 20 simulations: fit failed." in found.warnings


def test_a_sampler_that_breaks_costs_one_simulation(model):
    found = check(model, samplers.breaking, simulations=20, seed=0)
    failed = found.outcomes["outcome"].str.startswith("fit failed: ZeroDivisionError: ").sum()
    assert 0 < failed < 20
    assert len(found.ranks) == 20 - failed


def test_known_gaps_and_sizes_are_kept():
    """Counts are simulated with the sizes of the data, and what is masked has no part, whatever it holds."""
    full = simulated(noise="multinomial", size=40, seed=1)
    mask = np.ones(full.counts.shape, bool)
    mask[0, 4:8] = mask[1, 2] = False
    factor = np.array([1, 3])[:, None, None]
    found = []
    for hidden in (0, 7):
        counts = np.where(mask, full.counts * factor, hidden)
        population = Population(
            full.times, counts=counts, totals=np.broadcast_to(40 * factor[..., 0], (2, 11)), states=full.states, mask=mask
        )
        counted = calibration(population, gamma=PRIOR, observation=Multinomial())
        found.append(check(counted, samplers.exact, simulations=100, seed=3, quantities=_sizes))
    assert found[0].uniform().drop(["north", "south"]).all()
    assert set(found[0].prior_predictive["observations"]) == {17}
    assert (found[0].truth["north"] == 7 * 40).all()
    assert (found[0].truth["south"] == 10 * 120).all()
    pd.testing.assert_frame_equal(found[0].ranks, found[1].ranks)


def test_further_quantities(model, right):
    found = check(model, samplers.exact, simulations=10, seed=0, quantities=_last)
    assert list(found.ranks) == ["gamma", "log_likelihood", "last"]
    pd.testing.assert_series_equal(found.ranks["gamma"], right.ranks["gamma"].iloc[:10], check_names=False)
    size = (1, 2, 11, 3)
    for quantity, words in [
        (lambda implied: {"odd": np.zeros(3)}, r"quantity 'odd' has shape \(3,\)"),
        (lambda implied: {"gamma": np.zeros(len(implied["mu"]))}, "'gamma' is ranked already"),
        (lambda implied: {"odd": np.full(len(implied["mu"]), np.nan)}, "'odd' is not finite"),
        (lambda implied: {"first": implied["log_likelihood"][:, 0, 0]}, "log_likelihood"),
    ]:
        with pytest.raises((InputError, KeyError), match=words):
            check(model, samplers.exact, simulations=2, quantities=quantity)
    seen = []
    check(model, samplers.exact, simulations=1, quantities=lambda implied: seen.append(implied["record"]) or {})
    assert seen[0].shape == size
    assert np.array_equal(seen[1], np.repeat(seen[0], 99, axis=0)), "truth and draws are told the same data"


def _sizes(implied):
    """Counts of each trajectory that were simulated."""
    seen = [[t for t in range(11) if not 4 <= t < 8], [t for t in range(11) if t != 2]]
    return {name: implied["record"][:, r, seen[r]].sum(axis=(1, 2)) for r, name in enumerate(("north", "south"))}


def _last(implied):
    return {"last": implied["mu"][:, 0, -1, 0]}


def test_saved_and_loaded(right, tmp_path):
    again = load_check(right.save(tmp_path / "check.json"))
    for name in ("ranks", "truth", "outcomes", "prior_predictive"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(right, name), check_names=False, check_dtype=False)
    pd.testing.assert_frame_equal(again.table(), right.table())
    (tmp_path / "odd.json").write_text("{}")
    with pytest.raises(InputError, match="not a saved check"):
        load_check(tmp_path / "odd.json")
    with pytest.raises(InputError, match="no such file"):
        load_check(tmp_path / "none.json")


def test_page_and_pictures(right, tmp_path):
    text = right.report(tmp_path / "check.html").read_text()
    assert "Nothing speaks against calibration" in text
    assert "<script" not in text
    assert text.count("<figure>") == 4
    for kind in ("ecdf", "rank"):
        tree = ET.fromstring(right.plot(tmp_path / "check.svg", kind=kind).read_text())
        assert len([e for e in tree if e.tag.endswith("svg")]) == 2
    with pytest.raises(InputError, match="no quantity 'beta'"):
        right.plot(tmp_path / "check.svg", ["beta"])
    with pytest.raises(InputError, match="unknown kind 'pie'"):
        right.plot(tmp_path / "check.svg", kind="pie")


def test_goes_on_where_it_was_stopped(model, tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    write = Checkpoint.write

    def stopping(kept, stage, number, arrays):
        if len(list(folder.glob("*.npz"))) == 4:
            raise KeyboardInterrupt
        write(kept, stage, number, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "write", stopping)
        with pytest.raises(KeyboardInterrupt):
            check(model, samplers.exact, simulations=8, seed=5, checkpoint=folder)
    assert len(list(folder.glob("*.npz"))) == 4
    whole = check(model, samplers.exact, simulations=8, seed=5)
    again = check(model, samplers.exact, simulations=8, seed=5, checkpoint=folder, resume=True)
    pd.testing.assert_frame_equal(again.ranks, whole.ranks)
    pd.testing.assert_frame_equal(again.mean, whole.mean)
    other = model.with_population(simulated(noise="dirichlet", size=NOISE, seed=9))
    with pytest.raises(InputError, match="another fit: design differs"):
        check(other, samplers.exact, simulations=8, seed=5, checkpoint=folder, resume=True)
    with pytest.raises(InputError, match="another fit: seed differs"):
        check(model, samplers.exact, simulations=8, seed=6, checkpoint=folder, resume=True)
    with pytest.raises(InputError, match="is not empty"):
        check(model, samplers.exact, simulations=8, seed=5, checkpoint=folder)


def test_a_checkpoint_tells_functions_from_others_of_the_same_name(model, tmp_path):
    """What is bound to a sampler, and what a quantity without a name of its own computes."""
    first, other = (functools.partial(samplers.moved, by=by) for by in (0.0, 1.0))
    asked = {"simulations": 1, "seed": 5, "checkpoint": tmp_path / "kept"}
    check(model, first, quantities=lambda implied: {"last": implied["mu"][:, 0, -1, 0]}, **asked)
    with pytest.raises(InputError, match="content of method"):
        check(model, other, quantities=lambda implied: {"last": implied["mu"][:, 0, -1, 0]}, resume=True, **asked)
    with pytest.raises(InputError, match="content of quantities"):
        check(model, first, quantities=lambda implied: {"last": implied["mu"][:, 0, -1, 1]}, resume=True, **asked)
    with pytest.raises(InputError, match=r"check: method: .*by. is object, of which nobody can tell"):
        check(model, functools.partial(samplers.moved, by=object()), simulations=1, checkpoint=tmp_path / "other")
    same = functools.partial(samplers.moved, by=0.0)
    check(model, same, quantities=lambda implied: {"last": implied["mu"][:, 0, -1, 0]}, resume=True, **asked)


JUDGED = [
    {"pareto_k": 0.65, "pareto_k_limit": 0.63, "num_samples": 500},
    {"pareto_k": 0.62, "pareto_k_limit": 0.63, "num_samples": 500},
    {"pareto_k": 0.65, "pareto_k_limit": 0.7, "num_samples": 1000},
    {"pareto_k": -np.inf, "pareto_k_limit": 0.63, "num_samples": 500},
    {"pareto_k_limit": 0.63, "num_samples": 500},
    {"pareto_k_limit": 0.3, "num_samples": svi.FEWEST - 1},
]
"""What guides are judged by: k above its limit, below it twice, of a guide that is the posterior; no k as ratios or draws are too few."""


@pytest.fixture(scope="module")
def guided(model):
    """A check of a guide that gives exact draws, but for the second fit, which gives them in order of size, and that is judged as above."""
    judged = iter(JUDGED)

    def draw(model, method, *, seed, **_):
        settings = next(judged)
        flat = samplers.exact(model, seed=seed)
        flat = np.concatenate([flat, flat[:, ::-1], flat], axis=1)
        return np.sort(flat, axis=1) if settings is JUDGED[1] else flat, {}, settings, []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bayes_mfg.inference.checks.draw", draw)
        return check(model, "svi", simulations=len(JUDGED), seed=0, num_samples=500)


def test_guides_are_far_off_by_the_limit_that_fit_warns_at(guided, tmp_path):
    """And those of whose importance ratios too few count for a Pareto k are."""
    assert guided.far.to_dict() == {0: True, 1: False, 2: False, 3: False, 4: True}
    assert any(sentence.startswith("In 2 of 5 fits the Pareto k") for sentence in guided.warnings)
    assert load_check(guided.save(tmp_path / "check.json")).far.equals(guided.far)


def test_checks_of_before_limits_were_kept_are_judged_by_the_draws_asked_for(guided, tmp_path):
    kept = json.loads(guided.save(tmp_path / "check.json").read_text())
    del kept["ess"]
    columns = kept["outcomes"]["columns"]
    columns[columns.index("fit_draws")] = "of no matter"
    outcomes = kept["outcomes"]
    place = outcomes["columns"].index("pareto_k_limit")
    for row in [outcomes["columns"], *outcomes["data"]]:
        del row[place]
    outcomes["data"][4][outcomes["columns"].index("pareto_k")] = np.nan
    (tmp_path / "older.json").write_text(json.dumps(kept))
    older = load_check(tmp_path / "older.json")
    assert older.far.to_list() == [True, False, True, False, True, True]
    assert [s for s in older.warnings if "effective" in s] == [s for s in guided.warnings if "effective" in s] != []
    assert "least_ess" not in older.table() and older.table()["p_value"].equals(guided.table()["p_value"])


def test_one_fit_of_too_few_effective_draws_is_told(guided, right):
    """Draws in order of size have next to none; estimates from 99 draws are too rough to be told of."""
    least = guided.ess.min(axis=1)
    assert least[1] < 10 and least.drop(1).min() > 30
    assert guided.outcomes["ess"].to_list() == pytest.approx(least.to_list())
    assert guided.table()["least_ess"].to_dict() == pytest.approx(guided.ess.min().to_dict())
    assert any(
        sentence.startswith("In 1 of 6 fits the least effective sample size is below a fifth") for sentence in guided.warnings
    )
    assert right.outcomes["ess"].min() < 20 and not right.warnings


def test_threads_give_what_one_after_the_other_gives(model, right):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = check(model, samplers.exact, simulations=10, seed=0, executor=pool)
    pd.testing.assert_frame_equal(found.ranks, right.ranks.iloc[:10])


@pytest.mark.slow
def test_threads_take_turns_where_everything_is_compiled_anew():
    """NumPyro's handlers belong to the process: two threads that trace at a time would mix them up."""
    options = {"guide": "mean-field", "num_steps": 200, "tolerance": 0, "num_samples": 99, "starts": 1, "num_particles": 2}
    one = check(Linear(population()), "svi", simulations=2, seed=0, **options)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        other = check(Linear(population()), "svi", simulations=2, seed=0, executor=pool, **options)
    pd.testing.assert_frame_equal(one.ranks, other.ranks)


@pytest.mark.slow
def test_processes_give_what_one_after_the_other_gives(model, right):
    with processes(2) as pool:
        found = check(model, samplers.exact, simulations=10, seed=0, executor=pool)
    pd.testing.assert_frame_equal(found.ranks, right.ranks.iloc[:10])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_an_executor_of_dask_gives_what_one_after_the_other_gives(model, right):
    distributed = pytest.importorskip("distributed", reason="Dask is no dependency: pip install distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        found = check(model, samplers.exact, simulations=10, seed=0, executor=client.get_executor())
    pd.testing.assert_frame_equal(found.ranks, right.ranks.iloc[:10])


@pytest.mark.slow
def test_a_reduced_study_of_nuts(model):
    """False alarms 1 %. Draws too narrow by 40 % are found in at least 8 of 10 runs, those beside the truth by half an sd in 7 of 10."""
    found = check(model, "nuts", simulations=60, seed=0, num_chains=1, num_warmup=150, num_samples=300, starts=1)
    assert set(found.outcomes["outcome"]) == {"ranked"}
    assert found.uniform().all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "point"}, "'point' has no draws of a posterior"),
        ({"method": "svi", "guide": "point-mass"}, "'point-mass' has no draws of a posterior"),
        ({"method": "gibbs"}, "unknown method 'gibbs'"),
        ({"simulations": 0}, "simulations is 0"),
        ({"method": "ensemble"}, "'ensemble' has no draws of a posterior"),
        ({"draws": 9}, "draws is 9; a whole number of at least 19"),
        ({"method": "nuts", "start": None}, "start is no option of the fits inside a check"),
        ({"method": "nuts", "num_chains": 1, "num_samples": 50}, "99 draws are to be ranked among, but a fit has 50"),
        ({"method": "svi", "num_samples": 0}, "num_samples is 0"),
        ({"simulation": 5}, "simulation is no option of a function"),
        ({"method": samplers.flat}, "the sampler gave shape (99,); (chain, draw, 1) is needed"),
    ],
)
def test_refusals(model, options, sentence):
    given = {"method": samplers.exact, "simulations": 1, **options}
    with pytest.raises(InputError, match=re.escape(sentence)):
        check(model, **given)


def test_a_model_travels_with_its_changes(model):
    """What arrives is the model after `with_population` and `with_paths`, not the one it was first made as."""
    other = model.with_population(simulated(noise="dirichlet", size=NOISE, seed=7)).with_paths({"gamma": Constant(level=2.0)})
    arrived = ForkingPickler.loads(ForkingPickler.dumps(other))
    point = np.array([0.3])
    assert potential(arrived)(point, arrived.data) == pytest.approx(float(potential(other)(point, other.data)), rel=1e-12)
    assert potential(arrived)(point, arrived.data) != pytest.approx(float(potential(model)(point, model.data)))


def test_what_cannot_travel_is_refused(model):
    with pytest.raises(InputError, match="processes: workers is 0"):
        processes(0)

    class Local(Fragile):
        """Defined inside a function, where no other process finds it."""

    local = small(Local(2.0))
    with pytest.raises(InputError, match="cannot be sent to other processes"):
        travels(Parcel(local))
    travels(Parcel(model))


def test_what_the_caller_changes_later_does_not_travel():
    paths = {"gamma": PRIOR}
    starts = STARTS.copy()
    made = Calibration(
        LinearQuadratic(), simulated(noise="dirichlet", size=NOISE, seed=1), paths, Dirichlet(NOISE), initial=starts, substeps=1
    )
    before = fingerprint(made)
    paths["gamma"] = dist.LogNormal(0.0, 2.0)
    starts[:] = 1 / 3
    assert fingerprint(ForkingPickler.loads(ForkingPickler.dumps(made))) == before
    made.bound = {}  # what is set by hand is lost on the way, and noticed there
    made.paths = {}
    with pytest.raises(InputError, match="is not the one that was sent"):
        ForkingPickler.loads(ForkingPickler.dumps(Parcel(made)))


def test_many_quantities_do_not_hide_a_wrong_one():
    """The smallest p-value of a simulation alone would be above Holm's first level for more than a hundred quantities."""
    rng = np.random.default_rng(0)
    ranks = pd.DataFrame(rng.integers(0, 100, (200, 300)), columns=[f"q{k}" for k in range(300)])
    assert p_value(np.zeros(200, int), 99) < 1e-100
    ranks["q7"] = 0
    table = {name: pd.DataFrame() for name in ("truth", "mean", "sd", "prior_predictive")}
    outcomes = pd.DataFrame({"outcome": ["ranked"] * 200})
    found = Check(method="nuts", draws=99, seed=0, options={}, outcomes=outcomes, ranks=ranks, model={}, seconds=0.0, **table)
    assert [sentence.split(":")[0] for sentence in found.warnings] == ["q7"]
