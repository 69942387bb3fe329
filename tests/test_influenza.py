"""Learned priors of influenza seasons on simulated ones with known truth, the example on a file in FluView's format, and the benchmark's tables."""

import datetime

import numpy as np
import pandas as pd
import pytest

from bayes_mfg.data import Population
from bayes_mfg.data.fluview import mmwr_week, mmwr_week_start
from bayes_mfg.errors import InputError
from bayes_mfg.examples.influenza_season import main, season_model, seasons_of
from bayes_mfg.inference import learn_prior
from bayes_mfg.inference.many import Many
from benchmarks.influenza import KEY, alike, claim, differences, experiment, in_common, summary

WEEKS, DRAWS = 30, 100
REGIONS = ("Iowa", "Ohio", "Utah")

SCATTER = {"beta/level": 0.4, "recovery/value": 0.15, "contact_cost/value": 0.3, "concentration": 0.3, "seed[0]": 0.3}
"""Sds of the unknowns' truths; the changes of beta have 0.5."""

LOCATION = {"beta/level": 0.5, "recovery/value": -0.9, "contact_cost/value": 1.0, "concentration": 5.0, "seed[0]": -2.0}
"""Their means; the changes of beta have 0."""


def blank(count=1):
    """A population of the right shape with nothing in it."""
    counts, mask = np.zeros((count, WEEKS, 3), int), np.zeros((count, WEEKS, 3), bool)
    mask[..., 1] = True
    return Population(
        np.arange(WEEKS), counts=counts, totals=np.full((count, WEEKS), 1000), states=list("SIR"), mask=mask, time_unit="week"
    )


def smooth():
    """Seasons that rise and fall, each a little higher than the one before."""
    totals = np.full((21, WEEKS), 1000)
    counts, mask = np.zeros((21, WEEKS, 3), int), np.zeros((21, WEEKS, 3), bool)
    counts[..., 1] = 20 + np.outer(200 + 5 * np.arange(21), np.exp(-0.5 * ((np.arange(WEEKS) - 9) / 4) ** 2))
    mask[..., 1] = True
    return Population(np.arange(WEEKS), counts=counts, totals=totals, states=list("SIR"), mask=mask, time_unit="week")


@pytest.fixture(scope="module")
def simulated():
    """A model, and the seasons of many states drawn from a known normal: as many as importance draws, so that one program serves."""
    model = season_model(blank())
    many = Many(model, blank(), "test")
    rng = np.random.default_rng(11)
    location = np.array([LOCATION.get(name, 0.0) for name in many.space.names])
    scatter = np.array([SCATTER.get(name, 0.5) for name in many.space.names])
    unknowns = location + scatter * rng.standard_normal((DRAWS, len(location)))
    misfit, mu = many.implied(unknowns[None], np.arange(1))
    assert np.isfinite(misfit).all()
    share = mu[0, :, :WEEKS, 1]
    concentration = np.exp(unknowns[:, many.space.names.index("concentration")])[:, None]
    totals = rng.integers(200, 3000, share.shape)
    counts = np.zeros((*share.shape, 3), int)
    counts[..., 1] = rng.binomial(totals, rng.beta(concentration * share, concentration * (1 - share)))
    mask = np.zeros(counts.shape, bool)
    mask[..., 1] = True
    seasons = Population(np.arange(WEEKS), counts=counts, totals=totals, states=list("SIR"), mask=mask, time_unit="week")
    return model, seasons, location, scatter


@pytest.fixture(scope="module")
def learned(simulated):
    """The prior of these seasons, by EM with more refinements than the default."""
    return learn_prior(*simulated[:2], num_draws=DRAWS, refinements=30)


@pytest.mark.long
@pytest.mark.slow
def test_learning_finds_how_simulated_seasons_scatter(simulated, learned):
    """Sds of what seasons determine, of an estimate from 100 that has an sd of 7 %, and more for what they determine in part."""
    ratio = dict(zip(learned.names, np.sqrt(np.diag(learned.covariance)) / simulated[3], strict=True))
    for name in ("beta/level", "recovery/value", "concentration", "seed[0]"):
        assert 0.6 < ratio[name] < 1.5, ratio
    assert learned.evidence[-1] > learned.evidence[0]
    assert np.median(learned.pareto_k) < 0.7


@pytest.mark.long
@pytest.mark.slow
def test_learning_finds_a_typical_simulated_season(simulated, learned):
    """Within five standard errors in the unknowns that seasons determine."""
    error = np.sqrt(np.diag(learned.uncertainty))
    off = dict(zip(learned.names, (learned.location - simulated[2]) / error, strict=True))
    for name in ("beta/level", "recovery/value", "concentration", "seed[0]"):
        assert abs(off[name]) < 5, off


def written(population, path, seasons=range(2015, 2020)):
    """Three states in the format of FluView: 1 % before the onset, then a simulated season each."""
    lines = ['"*Beginning for the 2015-16 season, reports are presented separately."\n']
    lines += ["REGION TYPE,REGION,YEAR,WEEK,TOTAL SPECIMENS,TOTAL A,TOTAL B,PERCENT POSITIVE,PERCENT A,PERCENT B\n"]
    places = [(region, season) for region in REGIONS for season in seasons]
    for (region, season), counts, totals in zip(places, population.counts[..., 1], population.totals, strict=False):
        for week in range(52):
            since = week - 8
            n, k = (int(totals[since]), int(counts[since])) if 0 <= since < WEEKS else (500, 5 if since < 0 else 0)
            k = max(k, n // 20) if since in (0, 1) else k  # an onset it is
            year, number = mmwr_week(mmwr_week_start(season, 40) + datetime.timedelta(weeks=week))
            share = f"{100 * k / n:.2f}"
            lines.append(f"States,{region},{year},{number},{n},{k},0,{share},{share},0\n")
    path.write_text("".join(lines))


@pytest.mark.slow
def test_the_example_runs_on_a_file_in_fluviews_format(simulated, tmp_path, capsys):
    written(simulated[1], tmp_path / "ICL_NREVSS_Clinical_Labs.csv")
    picture = tmp_path / "season.svg"
    words = f"--data {tmp_path / 'ICL_NREVSS_Clinical_Labs.csv'} --state Ohio --season 2019 --training 2015 2016 2017 2018 --draws {DRAWS}"
    main([*words.split(), "--out", str(picture)])
    told = capsys.readouterr().out
    assert picture.read_text(encoding="utf-8").startswith("<svg") and told.rstrip().endswith("season.svg")
    assert sum(line.split()[:1] in (["3"], ["7"], ["11"], ["15"]) for line in told.splitlines()) == 16


def test_seasons_are_read_off_names():
    population = blank(2)
    named = Population(
        population.times,
        counts=population.counts,
        totals=population.totals,
        states=list("SIR"),
        mask=population.mask,
        trajectories=["New Mexico 2017-18", "Iowa 2018-19"],
    )
    assert seasons_of(named) == ["2017-18", "2018-19"]


def scored(wis, seed=0):
    """Scores of ten states in three seasons from two origins."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "trajectory": f"State {s} {season}",
            "origin": origin,
            "horizon": h,
            "wis": wis + 0.001 * rng.standard_normal(),
            "season": season,
        }
        for s in range(10)
        for season in ("2022-23", "2023-24", "2024-25")
        for origin in (3, 7)
        for h in (1, 2)
    ]
    return pd.DataFrame(rows).assign(share=0.1, log_score=-1.0, coverage50=0.5, coverage90=0.9)


def test_a_difference_is_told_only_where_it_is():
    tables = {"game": scored(0.03), "same": scored(0.03, seed=1), "worse": scored(0.04, seed=2)}
    found = differences(tables, "wis")
    assert found.loc["game - same", "game is"] == "no difference shown"
    assert found.loc["game - worse", "game is"] == "lower"
    assert found.loc["game - worse", "mean"] == pytest.approx(-0.01, abs=1e-3)
    # One season in which all is the other way round: three seasons tell nothing any more, however many states there are.
    turned = tables["worse"].copy()
    turned.loc[turned["season"] == "2024-25", "wis"] -= 0.03
    assert differences({**tables, "worse": turned}, "wis").loc["game - worse", "game is"] == "no difference shown"


def test_forecasts_are_paired_by_what_both_scored():
    """A forecast that one of them lacks counts for neither; the report refuses such tables."""
    whole, other = scored(0.03), scored(0.03, seed=1)
    short = other.iloc[5:]
    apart = whole["wis"].iloc[5:] - short["wis"]
    assert differences({"game": whole, "short": short}, "wis")["mean"].iloc[0] == pytest.approx(apart.mean())
    worst = whole["wis"].rank(ascending=False) <= 10
    failed = whole.assign(wis=whole["wis"].mask(worst))
    common, lacking = in_common({"game": failed, "other": other})
    assert lacking == {"game": 10, "other": 0}
    assert len(common["game"]) == len(common["other"]) == len(whole) - 10
    same = other.set_index(KEY).loc[pd.MultiIndex.from_frame(whole.loc[~worst, KEY])]
    assert summary(common).loc[("other",), "WIS, %"] == pytest.approx(100 * same["wis"].mean())
    alike({"game": whole, "other": other.sample(frac=1.0, random_state=0)})
    with pytest.raises(InputError, match="different observations \\(5 are"):
        alike({"game": whole, "short": short})
    with pytest.raises(InputError, match="short has forecasts twice"):
        alike({"short": pd.concat([short, short.iloc[:1]])})


def test_clustered_errors_are_those_of_the_formula():
    """Two-way clusters by the other definition: all pairs of forecasts that share a state or a season."""
    one, other = scored(0.03), scored(0.03, seed=5)
    one["wis"] += 0.003 * one["season"].map({"2022-23": 1, "2023-24": -1, "2024-25": 0.5}) + 0.002 * one["trajectory"].str[
        6
    ].astype(int)
    found = differences({"game": one, "other": other}, "wis").loc["game - other"]
    apart = (one["wis"] - other["wis"]).to_numpy()
    left = apart - apart.mean()
    state, season = one["trajectory"].str[:7].to_numpy(), one["season"].to_numpy()
    pairs = {name: (labels[:, None] == labels) for name, labels in (("state", state), ("season", season))}
    by = {name: left @ same @ left / len(left) ** 2 for name, same in pairs.items()}
    both = left @ (pairs["state"] & pairs["season"]) @ left / len(left) ** 2
    expected = by["state"] * 10 / 9 + by["season"] * 3 / 2 - both * 30 / 29
    assert found["error by season"] == pytest.approx(np.sqrt(by["season"] * 3 / 2))
    assert found["error"] == pytest.approx(np.sqrt(expected)) and expected > max(by["season"] * 3 / 2, by["state"] * 10 / 9)
    half = 4.302653 * found["error"]
    assert found["95 %"] == f"{apart.mean() - half:.4f} to {apart.mean() + half:.4f}"


def test_one_season_tells_nothing():
    tables = {"game": scored(0.03), "worse": scored(0.04, seed=2)}
    one = {name: table[table["season"] == "2022-23"] for name, table in tables.items()}
    assert differences(one, "wis").loc["game - worse", "game is"] == "cannot be told"


def test_a_folder_is_of_one_experiment(tmp_path):
    about = {"data": "a", "regions": ["Ohio"], "origins": [3, 7], "draws": 300, "models": {"game": "b"}}
    assert not claim(tmp_path / "one", about)
    assert claim(tmp_path / "one", about)
    with pytest.raises(InputError, match="another experiment: data, models differ"):
        claim(tmp_path / "one", about | {"data": "c", "models": {"game": "d"}})
    (tmp_path / "game.json").write_text("{}")
    with pytest.raises(InputError, match="unknown experiment"):
        claim(tmp_path, about)


def test_an_experiment_knows_its_data_and_models(tmp_path):
    """All of it but the constants of the module."""
    written(smooth(), tmp_path / "flu.csv", seasons=range(2015, 2022))
    (tmp_path / "other.csv").write_text((tmp_path / "flu.csv").read_text().replace("2015,45,", "2015,45,1"))
    first, other = (experiment(str(tmp_path / name), ()) for name in ("flu.csv", "other.csv"))
    assert first == experiment(str(tmp_path / "flu.csv"), ()) and first["data"] != other["data"]
    assert experiment(str(tmp_path / "flu.csv"), ("Ohio",)) != first
    assert len(set(first["models"].values())) == 2


def test_the_example_learns_from_the_past_alone(capsys):
    for season in ("2016", "2018"):
        with pytest.raises(SystemExit):
            main(["--data", "nothing.csv", "--season", season, "--training", "2015", "2018"])
        assert "not after all seasons that are learned from" in capsys.readouterr().err
