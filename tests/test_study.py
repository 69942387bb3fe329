"""Protects `study`: every cell and replicate once, resumed where it stopped, scored against a known truth."""

import concurrent.futures
import functools

import direct
import linear_model as lm
import numpy as np
import numpyro.distributions as dist
import pytest

from bayes_mfg.data import Population
from bayes_mfg.errors import DataError, InputError
from bayes_mfg.inference import FitError, study
from bayes_mfg.inference.assemble import derived
from bayes_mfg.inference.study_identity import identity
from bayes_mfg.inference.study_scores import _followed, _point, judged, noise_floor
from bayes_mfg.models import Gaussian
from bayes_mfg.paths import Constant, GaussianProcess, Pooled
from bayes_mfg.reproduce.study import _changed, _Row, load_study, run_study

CALLS, STOPS = [], {}


def added(seed, noise, kind="plain", extra=0.0):
    """Scores that are known."""
    CALLS.append((seed, noise, kind))
    if len(CALLS) == STOPS.get("after"):
        raise KeyboardInterrupt
    if noise == 3.0 and seed == 6:
        raise FitError("no luck")
    return {"score": noise + 0.1 * seed + extra, "label": kind, "flag": np.bool_(True), "one": np.float64(noise)}


GRID = {"noise": [1.0, 3.0], "kind": ["plain", "odd"]}


@functools.cache
def linear(scale):
    return lm.Linear(lm.population(), observation=None, paths={"a": Constant(), "b": Constant(level_scale=scale)})


def test_every_cell_and_replicate_once_and_failures_are_told():
    CALLS.clear()
    found = study(added, GRID, replicates=2, seed=5, extra=1.0)
    assert sorted(CALLS) == sorted((s, n, k) for s in (5, 6) for n in (1.0, 3.0) for k in ("plain", "odd"))
    rows = found.rows
    assert len(rows) == 8
    good = rows[rows["outcome"] == "done"]
    np.testing.assert_allclose(good["score"], good["noise"] + 0.1 * (5 + good["replicate"]) + 1.0)
    assert found.warnings == ["2 of 8 replicates have no scores; the first: fit failed: no luck."]
    table = found.table()
    assert table["scored"].tolist() == [2, 2, 1, 1]
    assert table["score"].iloc[0] == pytest.approx(2.55)
    assert table["score_error"].iloc[0] == pytest.approx(0.05)
    assert np.isnan(table["score_error"].iloc[2])


def test_a_study_goes_on_where_it_stopped_and_only_as_the_same_study(tmp_path, monkeypatch):
    whole = study(added, GRID, replicates=2)
    CALLS.clear()
    monkeypatch.setitem(STOPS, "after", 4)
    with pytest.raises(KeyboardInterrupt):
        study(added, GRID, replicates=2, checkpoint=tmp_path / "kept")
    STOPS.clear()
    CALLS.clear()
    again = study(added, GRID, replicates=2, checkpoint=tmp_path / "kept", resume=True)
    assert len(CALLS) == 5
    columns = [c for c in whole.rows if c != "seconds"]
    assert again.rows[columns].equals(whole.rows[columns])
    more = study(added, GRID, replicates=3, checkpoint=tmp_path / "kept", resume=True)
    assert len(CALLS) == 9
    assert len(more.rows) == 12
    for changed, what in (
        ({"grid": {"noise": [1.0], "kind": ["plain"]}}, "grid"),
        ({"seed": 1}, "seed"),
        ({"extra": 2.0}, "options"),
    ):
        given = {"grid": GRID, "replicates": 2, **changed}
        with pytest.raises(InputError, match=what):
            study(added, given.pop("grid"), checkpoint=tmp_path / "kept", resume=True, **given)


def test_a_model_is_simulated_fitted_and_scored():
    """The linear model: the Laplace approximation is its posterior, so that scores are known in expectation; by threads, which take turns."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = study(
            linear, {"scale": [1.0]}, replicates=12, method="svi", guide="laplace", num_samples=200, starts=1, executor=pool
        )
    rows = found.rows
    assert (rows["outcome"] == "done").all()
    assert (rows["failed_solves"] == 0).all()
    # 24 intervals of 90 %: fewer than 16 cover with a probability of 3e-4.
    assert rows["coverage90"].mean() * 24 > 15
    # Each row has nine times two shares off by SCALE.
    floor = rows["noise_floor"].mean()
    assert floor == pytest.approx(2 * lm.SCALE**2, rel=0.5)
    assert rows["mu_error"].mean() < 0.5 * floor
    again = study(linear, {"scale": [1.0]}, replicates=1, method="svi", guide="laplace", num_samples=200, starts=1)
    assert again.rows["crps"][0] == rows["crps"][0]
    known = study(linear, {"scale": [1.0]}, replicates=1, method="point", truth={"a": 1.0, "b": 0.0}, starts=1)
    assert np.isnan(known.rows["coverage90"][0])


def test_whatever_goes_wrong_in_a_replicate_is_its_outcome():
    """And is not met again by a study that goes on."""
    wrong = {0: DataError("no data"), 1: np.linalg.LinAlgError("singular"), 2: KeyError("x")}

    def failing(seed):
        if seed in wrong:
            raise wrong[seed]
        return {"score": 1.0}

    outcomes = study(lambda seed, a: failing(seed), {"a": [1]}, replicates=4).rows["outcome"].tolist()
    assert outcomes == ["failed: DataError: no data", "failed: LinAlgError: singular", "failed: KeyError: 'x'", "done"]


def test_cell_by_cell_so_that_what_is_compiled_serves_all_replicates():
    """A process keeps the models of two cells."""
    CALLS.clear()
    study(added, {"noise": [1.0, 2.0, 4.0]}, replicates=2)
    assert [noise for _, noise, _ in CALLS] == [1.0, 1.0, 2.0, 2.0, 4.0, 4.0]


def test_constants_count_once_for_every_time_in_the_error_of_all():
    paths = {"a": Constant(), "b": GaussianProcess(length_scale=0.5)}
    model = lm.Linear(lm.population(), paths=paths)
    times = len(lm.TIMES)
    true = {"a": np.full(times, 2.0), "b": np.linspace(1.0, 3.0, times)}
    off = {"a": 0.5, "b": 0.1}
    truth = {f"parameter/{name}": x[None] for name, x in true.items()} | {"mu": np.full((1, 1, times, 2), 0.5)}
    draws = {f"parameter/{name}": x[None] + off[name] for name, x in true.items()} | {"mu": np.full((1, 1, times, 2), 0.5)}
    square = times * (off["a"] ** 2 + off["b"] ** 2)
    size = sum(float(np.sum(x**2)) for x in true.values())
    assert judged(model, truth, draws)["gamma_error"] == pytest.approx(np.sqrt(square / size))


def doubled(seed, noise):
    return {"score": 2.0 * noise}


def scaled(factor):
    def function(seed, noise):
        return {"score": factor * noise}

    return function


def doubled_model(scale):
    return 2


def broken_model(scale):
    raise KeyError("lost")


class Odd:
    """An object of which nobody can tell what it consists of."""


def test_identities_are_of_what_a_function_consists_of():
    ways = [
        doubled,
        added,
        scaled(1.0),
        scaled(2.0),
        functools.partial(added, extra=1.0),
        functools.partial(added, extra=2.0),
        functools.partial(added, extra=np.ones(2)),
        Constant(),
        Constant(level_scale=2.0),
        {"a": {"x", "y"}},
        dist.Normal(0.0, 1.0),
        dist.Normal(0.0, 2.0),
    ]
    assert len({identity(x, "function") for x in ways}) == len(ways)
    assert identity(scaled(2.0), "f") == identity(scaled(2.0), "f")
    assert identity(dist.Normal(0.0, 1.0), "f") == identity(dist.Normal(0.0, 1.0), "f")
    assert identity(_Row("x", "a.toml"), "f") == identity(_Row("x", "./a.toml"), "f") != identity(_Row("y", "a.toml"), "f")
    with pytest.raises(InputError, match="options: 'path' is Odd"):
        identity({"path": Odd()}, "options")


def test_another_function_of_the_same_name_is_another_study(tmp_path):
    study(scaled(1.0), {"noise": [1.0]}, replicates=1, checkpoint=tmp_path / "kept")
    study(scaled(1.0), {"noise": [1.0]}, replicates=1, checkpoint=tmp_path / "kept", resume=True)
    with pytest.raises(InputError, match="content of the function"):
        study(scaled(2.0), {"noise": [1.0]}, replicates=1, checkpoint=tmp_path / "kept", resume=True)


def test_scores_are_what_they_say():
    model = linear(1.0)
    times = len(lm.TIMES)
    truth = {
        "parameter/a": np.full((1, times), 3.0),
        "parameter/b": np.full((1, times), 4.0),
        "mu": np.full((1, 1, times, 2), 0.5),
    }
    draws = {
        "parameter/a": np.repeat([[3.0], [4.0], [5.0]], times, axis=1),
        "parameter/b": np.repeat([[4.0], [4.0], [4.0]], times, axis=1),
        "mu": np.full((3, 1, times, 2), 0.5) + np.array([0.3, 0.0, 0.0])[:, None, None, None],
    }
    found = judged(model, truth, draws)
    assert found["gamma_error"] == pytest.approx(1.0 / 5.0)
    assert found["coverage90"] == 0.5  # the 5 % quantile of a is 3.1
    assert found["width90"] == pytest.approx(1.8 / 7.0)
    assert found["mu_error"] == pytest.approx(2 * 0.1**2)
    assert found["crps"] == pytest.approx(0.5 * (1.0 - 2.0 / 3.0))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"function": 3}, "function is 3"),
        ({"grid": {}}, "a dict from names"),
        ({"grid": {"noise": 1.0}}, "a list of at least one"),
        ({"grid": {"noise": [1.0, 1.0]}}, "values of their own"),
        ({"grid": {"noise": [(1,)]}}, "which a table can hold"),
        ({"grid": {"seed": [1]}}, "no name of the grid"),
        ({"replicates": 0}, "replicates is 0"),
        ({"method": "mcmc"}, "method is 'mcmc'"),
        ({"truth": {"a": 1.0}}, "and a method"),
        ({"function": lambda seed, noise: 3}, "the function gave 3"),
        ({"function": lambda seed, noise: {"x": [1]}}, "'x'"),
    ],
)
def test_what_is_no_study_is_refused(changed, message):
    given = {"function": added, "grid": {"noise": [1.0]}, "replicates": 1, **changed}
    with pytest.raises(InputError, match=message):
        study(given.pop("function"), given.pop("grid"), **given)


SINE = {"a": 3.0 * np.sin(6.0 * lm.TIMES)}


@functools.cache
def of_family(kind):
    family = {"const": Constant(), "gp": GaussianProcess(length_scale=0.5)}[kind]
    return lm.Linear(lm.population(), paths={"a": family, "b": Constant(dist.Normal(0.0, 0.1))}, observation=Gaussian(scale=1e-4))


def test_data_are_simulated_at_the_given_truth_whatever_a_family_can_follow():
    """And the families are told apart on the same data; what is not given is drawn, for every replicate anew."""
    grid, options = {"kind": ["const", "gp"]}, {"method": "point", "starts": 1}
    rows = study(of_family, grid, truth=SINE, replicates=1, **options).rows.set_index("kind")
    assert (rows["outcome"] == "done").all()
    assert rows["noise_floor"]["const"] == rows["noise_floor"]["gp"]
    size = np.sqrt(np.mean(SINE["a"] ** 2))
    spread = np.std(SINE["a"]) / size
    assert rows["gamma_error"]["const"] > 0.9 * spread  # a constant is off by the truth's spread at least
    for score in ("gamma_error", "crps", "mu_error"):
        assert rows[score]["gp"] < 0.4 * rows[score]["const"]
    model = of_family("const")
    source = _followed(model, SINE)
    points = [_point(model, source, SINE, seed) for seed in (0, 1)]
    assert source.bound["a"].priors == {} and points[0].shape == (1,)
    assert points[0][0] != points[1][0]
    made = derived(source, points[0][None], 0)
    np.testing.assert_allclose(made["parameter/a"][0], SINE["a"], atol=1e-14)
    np.testing.assert_allclose(made["mu"][0, 0, :, 0], 0.5 + lm.SIZE * (SINE["a"] + points[0][0] * lm.TIMES), atol=1e-14)
    between = source.bound["a"].function({})(0.5 * (lm.TIMES[1] + lm.TIMES[2]), None)
    assert float(between) == pytest.approx(SINE["a"][1:3].mean())


@functools.cache
def of_pooling(pooling):
    data = direct.seen(np.zeros((3, len(direct.TIMES))), 1e-3, 0)
    return direct.Direct(data, Pooled(GaussianProcess(length_scale=0.5), pooling), 1e-3)


def test_a_truth_is_that_of_every_trajectory_where_a_family_has_one_for_each():
    moving = np.linspace(-1.0, 1.0, len(direct.TIMES))
    found = study(of_pooling, {"pooling": ["separate"]}, method="point", truth={"x": moving}, replicates=1, starts=1).rows
    assert found["outcome"].tolist() == ["done"]
    assert found["gamma_error"][0] < 0.1


def test_the_noise_floor_is_over_what_is_observed():
    """One of two states, at four of five times of the first of two trajectories."""
    shares = np.random.default_rng(0).dirichlet([9.0, 9.0], (2, len(direct.TIMES)))
    mask = np.ones(shares.shape, bool) & [True, False]
    mask[0, 2] = False
    data = Population(direct.TIMES, proportions=shares, states=["a", "b"], mask=mask)
    off = (shares - 0.4)[mask]
    model = direct.Direct(data, Constant(), 1e-3)
    assert off.size == 9 and noise_floor(model, np.full(shares.shape, 0.4)) == pytest.approx(np.mean(off**2))


def test_a_constant_is_scored_at_every_time_of_a_truth_that_moves():
    times = len(lm.TIMES)
    moving = np.linspace(0.0, 4.0, times)
    truth = {"parameter/a": moving[None], "parameter/b": np.ones((1, times)), "mu": np.full((1, 1, times, 2), 0.5)}
    draws = {"parameter/a": np.full((1, times), 2.0), "parameter/b": np.ones((1, times)), "mu": np.full((1, 1, times, 2), 0.5)}
    assert judged(linear(1.0), truth, draws)["crps"] == pytest.approx(0.5 * np.mean(np.abs(moving - 2.0)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"replicate": 20}, "no option 'replicate'"),
        ({"guid": "laplace"}, "no option 'guid'"),
        ({"guide": "laplac"}, "guide 'laplac'"),
        ({"method": "point", "objective": "maps"}, "objective 'maps'"),
        ({"method": "point", "num_samples": 5}, "no option 'num_samples'"),
        ({"method": "point", "objective": "paper", "starts": 2}, "no option 'starts'"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"start": np.zeros(2)}, "start is no option"),
        ({"truth": {"gama": 1.0}}, "truth has 'gama'; the model has a and b"),
        ({"truth": {"a": np.zeros(3)}}, r"parameter 'a': values has shape \(3,\)"),
        ({"function": doubled_model}, "the function gave int"),
        ({"function": broken_model}, "makes no model of the first cell, .*KeyError: 'lost'"),
    ],
)
def test_what_would_fail_in_every_replicate_is_refused_before_the_first(changed, message, tmp_path):
    given = {"function": linear, "method": "svi", "replicates": 1, **changed}
    with pytest.raises(InputError, match=message):
        study(given.pop("function"), {"scale": [1.0]}, checkpoint=tmp_path / "kept", **given)
    assert not (tmp_path / "kept").exists()


def test_pictures_and_tables_are_written(tmp_path):
    found = study(added, {"noise": [1.0, 20.0, 3.0], "kind": ["plain", "odd"]}, replicates=3, seed=5)
    assert "flag" in found.scores  # truth values beside the gap of one that failed
    picture = found.plot(tmp_path / "study.svg").read_text()
    assert picture.count("<svg") > 2
    assert found.plot(tmp_path / "study.svg", x="kind", scores=["score"]).exists()
    saved = found.save(tmp_path / "study.csv")
    assert len(saved.read_text().splitlines()) == 1 + len(found.rows)
    assert (tmp_path / "study.json").exists()
    with pytest.raises(InputError, match="the grid has noise, kind"):
        found.plot(tmp_path / "x.svg", x="size")
    with pytest.raises(InputError, match="there are"):
        found.plot(tmp_path / "x.svg", scores=["nothing"])


CONFIG = """
[study]
replicates = 1
[grid]
"simulate.noise.size" = [1e-3]
"fit.paths.gamma" = ["known", "free"]
[variants.known]
family = "Constant"
prior = {distribution = "LogNormal", loc = 0.4, scale = 0.01}
[variants.free]
family = "Constant"
[simulate.game]
name = "LinearQuadratic"
[simulate.parameters]
gamma = 1.5
[simulate.initial]
mu0 = [0.2, 0.3, 0.5]
[simulate.grid]
horizon = 1.0
points = 6
substeps = 2
[simulate.noise]
kind = "dirichlet"
size = 1e-3
[fit]
initial = "true"
[fit.game]
name = "LinearQuadratic"
[fit.paths.gamma]
family = "Constant"
[fit.observation]
kind = "Dirichlet"
noise = 1e-3
[fit.grid]
substeps = 2
[fit.inference]
method = "svi"
guide = "laplace"
num_samples = 200
starts = 1
"""


@pytest.mark.slow
def test_a_config_simulates_and_fits(tmp_path):
    place = tmp_path / "study.toml"
    place.write_text(CONFIG)
    found = run_study(load_study(place), progress=False)
    table = found.table()
    assert table["fit.paths.gamma"].tolist() == ["known", "free"]
    assert (table["scored"] == 1).all()
    assert table["width90"][0] < table["width90"][1] < 1.0
    assert (table["gamma_error"] < 0.3).all()
    assert (table["mu_error"] < table["noise_floor"]).all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[grid]", "[grids]", "does not take the table"),
        ("[1e-3]", "1e-3", "a list of numbers or names"),
        ('"simulate.noise.size"', '"noise.size"', "begins with simulate. or fit."),
        ('"simulate.noise.size"', '"simulate.noise.size.x"', "which is no table"),
        ("replicates = 1", 'replicates = "a"', "replicates"),
        ("[1e-3]", "[1e-3, true]", "size"),
        ('["known", "free"]', '["known", "fre"]', "fre"),
        ('"simulate.noise.size"', '"simulate.noise.sizes"', "sizes"),
        ('"fit.paths.gamma"', '"fit.paths.gama"', "gama"),
        ("[simulate.game]", '[benchmark]\nsystem = "lq"\n[simulate.game]', "either the table"),
    ],
)
def test_configs_of_studies_are_checked(tmp_path, old, new, message):
    place = tmp_path / "study.toml"
    place.write_text(CONFIG.replace(old, new))
    with pytest.raises(InputError, match=message):
        load_study(place)


def test_a_cell_replaces_what_it_names_and_nothing_else():
    content = {"simulate": {"noise": {"size": 1.0, "kind": "x"}}, "fit": {"a": {"b": 1}}, "variants": {"v": {"c": 2}}}
    made = _changed(content, {"simulate.noise.size": 3.0, "fit.a.b": "v"}, "f")
    assert made == {"simulate": {"noise": {"size": 3.0, "kind": "x"}}, "fit": {"a": {"b": {"c": 2}}}}
    assert content["simulate"]["noise"]["size"] == 1.0
