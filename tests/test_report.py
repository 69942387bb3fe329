"""The report page: whole, self-contained, escaped, and made from whatever a tree holds."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from report_tree import make_tree

from bayes_mfg.errors import InputError
from bayes_mfg.inference import Fit, report, report_page, report_stats, report_svg
from bayes_mfg.inference.report import render, write_report

NASTY = "<script>alert(1)</script>"
AND = "a & b"
SECTIONS = ("summary", "parameters", "learning", "predictions", "trajectories", "convergence", "solver", "data", "settings")
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that tags balance, and keeps what was seen."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.ids, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v) for k, v in attrs]
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v) for k, v in attrs]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def without(tree, *names):
    kept = xr.DataTree.from_dict({n: c.to_dataset() for n, c in tree.children.items() if n not in names})
    kept.attrs = tree.attrs
    return kept


def check(text):
    """What must hold for every page; returns the parsed page."""
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert not {"script", "link", "img", "iframe", "object", "image", "use", "foreignobject"} & set(page.tags)
    refs = [v for _, k, v in page.attributes if k in ("src", "href", "srcset", "data", "action", "xlink:href")]
    assert all(v.startswith("#") for v in refs), "the page refers to something outside itself"
    assert {v[1:] for v in refs} <= set(page.ids)
    assert not re.search(r"@import|url\(|javascript:", text)
    assert not [k for _, k, _ in page.attributes if k.startswith("on")]
    assert len(page.ids) == len(set(page.ids))
    assert [i for i in page.ids if i in SECTIONS] == list(SECTIONS)
    assert page.tags.count("desc") >= page.tags.count("figure")
    drawn = " ".join(v for _, k, v in page.attributes if k in ("d", "cx", "cy", "x", "y", "width", "height", "viewbox") and v)
    assert not re.search(r"nan|inf", drawn), "a drawing holds a number that is none"
    return page


@pytest.fixture(scope="module")
def tree():
    return make_tree()


def test_a_whole_fit_has_every_section_and_its_figures(tree):
    text = render(tree)
    page = check(text)
    for words in (
        "The game SIR with states S, I and R was fitted to 1 trajectory of 14 times, 13 observed cells of I (counts)",
        "4 chains of 250 draws",
        "Parameters: beta (Gaussian process, length scale 5); recovery (constant). Held fixed: infection_cost = 1.",
        "No convergence check failed",
        "informed by the data",
        "contraction of 0.5 and more",
        "of 13 observed cells",
        "The equilibrium was found",
        "British Medical Journal 1978, page 587",
        "Latent variables (1)",
        "0.12.0",
        'game = "SIR"',
    ):
        assert words in page.text, words
    assert page.tags.count("figure") == 3 + 1 + 2  # beta, recovery, concentration; I; population and value
    assert ">forecast<" not in text


def test_names_from_data_are_escaped(tree):
    mean = make_tree(trajectories=(NASTY, AND), states=(NASTY, AND, "\"'><svg onload=x>"), seen=(AND, NASTY))
    parameter = 'beta"><script>alert(2)<b>'  # a tree refuses a slash
    for name in ("posterior", "prior"):
        mean[name] = xr.DataTree(mean[name].to_dataset().rename({"beta": parameter}))
    about = json.loads(mean.attrs["game"])
    about["name"], about["parameters"][0] = NASTY, {"name": parameter, "unit": NASTY, "description": AND, "lower": 0.0}
    mean.attrs |= {
        "title": NASTY,
        "method": f"nuts {NASTY}",
        "seed": NASTY,
        "created": NASTY,
        "observation": NASTY,
        "config": f"</code></pre>{NASTY}",
        "game": json.dumps(about),
        "paths": json.dumps({parameter: NASTY, "recovery": AND}),
        "versions": json.dumps({NASTY: NASTY}),
        "inference": json.dumps({NASTY: [NASTY, {"a": NASTY}]}),
        "data": json.dumps({"time_unit": NASTY, NASTY: NASTY, "provenance": {"url": "javascript:x", NASTY: {NASTY: NASTY}}}),
        "warnings": json.dumps([NASTY, "\x00\ud800"]),
    }
    mean["solver"].attrs[NASTY] = NASTY
    text = render(mean)
    page = check(text.replace("javascript:x", ""))
    assert "<script" not in text
    assert "onload=x>" not in text
    assert NASTY in page.text
    assert AND in page.text
    assert "a &amp; b" in text
    text.encode("utf-8")


GROUPS = tuple(make_tree(draws=5).children)


@pytest.mark.parametrize("gone", [*[(n,) for n in GROUPS], ("posterior_predictive", "observed_data"), GROUPS], ids="-".join)
def test_a_missing_group_leaves_a_sentence_or_nothing(tree, gone):
    check(render(without(tree, *gone)))


def test_missing_or_broken_attributes_do_not_matter(tree):
    bare = without(tree)
    bare.attrs = {}
    check(render(bare))
    bare.attrs = dict.fromkeys(tree.attrs, "{not json")
    check(render(bare))
    bare.attrs = dict.fromkeys(tree.attrs, "[1, null]") | {"warnings": '{"a": 1}', "wall_time_seconds": float("nan")}
    check(render(bare))


def test_a_point_fit_claims_no_spread():
    page = check(render(make_tree(chains=1, draws=1, method="point")))
    assert "A point estimate says nothing about uncertainty" in page.text
    assert "not assessed: one draw" in page.text
    assert "R-hat and ESS judge Markov chains and do not apply" in page.text
    assert "Largest R-hat" not in page.text
    assert "informed by the data" not in page.text.split("Verdict:")[0]


def test_a_variational_fit_claims_no_r_hat():
    page = check(render(make_tree(chains=1, method="svi")))
    assert "variational approximation" in page.text
    assert "Largest R-hat" not in page.text


def test_bad_chains_are_named():
    tree = make_tree()
    beta = tree["posterior"]["beta"].copy()
    beta[0] += 5.0
    tree["posterior"]["beta"] = beta
    tree["posterior"]["concentration"] = xr.zeros_like(tree["posterior"]["concentration"]) + xr.DataArray(
        np.arange(4.0), dims="chain"
    )
    tree["sample_stats"]["diverging"][1, :2] = True
    tree["sample_stats"]["failed_solve"][1, :1] = True
    page = check(render(tree))
    found = re.search(r"R-hat is (\S+) for concentration", page.text)  # stuck chains
    assert found
    assert found[1] == "∞" or float(found[1]) > 10
    assert "2 transitions diverged" in page.text
    assert "1 of 1000 transitions (0.1 %) met parameters whose equilibrium was not found" in page.text
    assert "No convergence check failed" not in page.text


def test_draws_that_are_not_finite_are_counted_and_do_not_spread():
    tree = make_tree()
    for name in ("beta", "mu"):
        broken = tree["posterior"][name].copy()
        broken[0, 3] = np.nan
        tree["posterior"][name] = broken
    page = check(render(tree))
    assert "Some draws of beta and mu are not finite." in page.text
    assert "13 observed cells" in page.text


def test_many_trajectories_are_cut_to_twelve_and_the_page_says_so():
    page = check(render(make_tree(draws=60, trajectories=tuple(f"camp {i}" for i in range(15)), seen=("S", "I"))))
    assert page.text.count("Shown are 12 of 15 trajectories.") == 2
    assert page.tags.count("figure") == 3 + 12 * 2 + 12 * 2
    assert "camp 11" in page.text
    assert "of 419 observed cells" in page.text  # all fifteen count: 15 * 14 * 2 less one that is masked


def test_many_states_are_cut_to_eight():
    states = tuple(f"state {i}" for i in range(11))
    page = check(render(make_tree(draws=60, states=states, seen=states[:9])))
    assert "Shown are 8 of 9 observed states." in page.text
    assert "Shown are the 8 of 11 states with the greatest average population." in page.text


def test_a_forecast_is_marked_where_the_data_end():
    text = render(make_tree(times=20, observed=14))
    page = check(text)
    assert text.count(">forecast<") == 1 + 1 + 2  # beta, the prediction, population and value
    assert "The last observation is at time 13 (days)." in page.text
    assert "of 13 observed cells" in page.text


def test_the_page_survives_the_file(tree, tmp_path):
    """Nothing may hang on what netCDF does not keep."""
    path = tmp_path / "fit.nc"
    kept = without(tree)
    kept.to_netcdf(path, engine="h5netcdf")
    with xr.open_datatree(path, engine="h5netcdf") as again:
        assert render(again) == render(tree)


def test_one_time_no_coordinates_and_no_trajectory():
    rng = np.random.default_rng(0)
    sample = ("chain", "draw")
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(
                {
                    "gamma": ((*sample, "time"), rng.normal(size=(2, 50, 1))),
                    "drift": ((*sample, "time", "k", "j"), rng.normal(size=(2, 50, 1, 5, 4))),
                    "mu": ((*sample, "time", "state"), rng.dirichlet([1, 1], size=(2, 50, 1))),
                }
            ),
            "prior": xr.Dataset({"gamma": (sample, rng.normal(size=(1, 80)))}),
            "posterior_predictive": xr.Dataset(
                {"proportions": ((*sample, "time", "state"), rng.dirichlet([1, 1], size=(2, 50, 1)))}
            ),
            "observed_data": xr.Dataset({"proportions": (("time", "state"), np.array([[0.4, np.nan]]))}),
        }
    )
    page = check(render(tree))
    assert "drift: 12 of 20 components shown." in page.text
    assert "of 1 observed cell " in page.text


def test_what_is_held_fixed_gets_no_chart():
    tree = make_tree(draws=30)
    for name in ("posterior", "prior"):
        tree[name]["recovery"] = xr.full_like(tree[name]["recovery"], 0.5)
    page = check(render(tree))
    assert "recovery is held fixed and has no chart." in page.text
    assert page.text.count("held fixed") == 2
    assert page.tags.count("figure") == 2 + 1 + 2


def test_dates_and_a_constant_time_axis():
    tree = make_tree(draws=30)
    dates = np.datetime64("1978-01-22", "ns") + np.arange(14) * np.timedelta64(1, "D")
    moved = xr.DataTree.from_dict(
        {n: c.to_dataset().assign_coords(time=dates) if "time" in c.dims else c.to_dataset() for n, c in tree.children.items()}
    )
    moved.attrs = tree.attrs
    check(render(moved))


def test_contraction_and_verdicts():
    """Against spreads that are known: half, nine tenths and all of the prior's, and a path that is held fixed."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=4000)
    z = (z - z.mean()) / z.std(ddof=1)
    for scale, shift, verdict in (
        (0.4, 0.0, "informed by the data"),
        (0.7, 0.0, "partly informed"),
        (0.9, 0.0, "prior-driven"),
        (0.9, 1.5, "partly informed"),
        (1.3, 0.0, "prior-driven"),
    ):
        for log in (False, True):
            post, prior = shift + scale * z, z
            post, prior = (np.exp(post), np.exp(prior)) if log else (post, prior)
            tree = xr.DataTree.from_dict(
                {
                    "posterior": xr.Dataset({"a": (("chain", "draw"), post[None])}),
                    "prior": xr.Dataset({"a": (("chain", "draw"), prior[None])}),
                }
            )
            (quantity,) = report_stats.quantities(tree)
            (row,) = report_stats.learning(quantity, None)
            assert quantity.log is log
            assert row.contraction == pytest.approx(1 - scale, abs=1e-9)
            assert row.shift == pytest.approx(shift, abs=1e-9)
            assert row.verdict == verdict
    tree = xr.DataTree.from_dict(
        {n: xr.Dataset({"a": (("chain", "draw"), np.full((1, 9), 2.0))}) for n in ("posterior", "prior")}
    )
    assert report_stats.learning(report_stats.quantities(tree)[0], None)[0].verdict == "held fixed"


def test_rates_are_told_in_the_unit_of_the_datas_own_time():
    tree = make_tree()
    assert [q.unit for q in report_stats.quantities(tree)[:2]] == ["1/days", "1/days"]
    tree.attrs["data"] = json.dumps({})
    assert [q.unit for q in report_stats.quantities(tree)[:2]] == ["1/time", "1/time"]


def test_coverage_counts_observed_cells_only_and_finds_them_by_name():
    """Times and states of the predictions stand in another order and go further than the data."""
    draws = np.arange(101.0)[None, :, None, None, None] * np.ones((1, 101, 2, 4, 2))
    predicted = xr.DataArray(
        draws, dims=("chain", "draw", "trajectory", "time", "state"),
        coords={"trajectory": ["q", "p"], "time": [0.0, 1.0, 2.0, 3.0], "state": ["R", "I"]},
    )  # fmt: skip
    predicted = predicted + 1000.0 * (predicted.state == "R")
    observed = xr.DataArray(
        [[[5.0, 1005.0], [95.0, 1095.1], [np.nan, 1050.0]]], dims=("trajectory", "time", "state"),
        coords={"trajectory": ["p"], "time": [0.0, 1.0, 2.0], "state": ["I", "R"]},
    )  # fmt: skip
    tree = xr.DataTree.from_dict(
        {"posterior_predictive": xr.Dataset({"counts": predicted}), "observed_data": xr.Dataset({"counts": observed})}
    )
    assert report_stats.coverage(tree) == {"I": (2, 2), "R": (2, 3)}


def test_convergence_agrees_with_arviz_and_leaves_constants_out(tree):
    import arviz

    rows = {r.name: r for r in report_stats.convergence(tree["posterior"].to_dataset())}
    theirs = arviz.summary(tree, var_names=["concentration"], kind="all", ci_prob=0.9, ci_kind="eti", round_to="none").iloc[0]
    mine = rows["concentration"]
    assert mine.r_hat == pytest.approx(theirs["r_hat"])
    assert mine.ess_bulk == pytest.approx(theirs["ess_bulk"])
    assert (mine.mean, mine.sd) == pytest.approx((theirs["mean"], theirs["sd"]))
    assert (mine.low, mine.high) == pytest.approx((theirs["eti90_lb"], theirs["eti90_ub"]))
    assert rows["mu"].cells == 14 * 3
    assert rows["mu"].checked < 14 * 3
    assert rows["mu"].missing == 0


def test_the_file_is_whole_or_absent(tree, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    assert write_report(tree, path) == path
    assert path.read_text(encoding="utf-8") == render(tree)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert write_report(tree, str(path)) == path  # replaces

    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(report.Path, "replace", fail)
    for place in (path, tmp_path / "other.html"):
        with pytest.raises(OSError, match="disk full"):
            write_report(tree, place)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(InputError, match="nowhere"):
        write_report(tree, tmp_path / "nowhere" / "report.html")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1234.5, "1234"), (0.45, "0.450"), (-0.5, "−0.500"), (1e-10, "1.00e−10"), (np.nan, "–"), (np.inf, "∞"),
     (None, "–"), (np.int64(-3), "−3"), (True, "yes"), ("text", "text")],
)  # fmt: skip
def test_numbers_for_people(value, shown):
    assert report_page.number(value) == shown


def test_settings_keep_their_digits():
    assert [report_page.exact(x) for x in (1e-10, 763.0, 0.001, 2.5e-4)] == ["1e−10", "763", "0.001", "0.00025"]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 8.7), (0.1234, 0.1239), (0, 1e-9), (1e6, 3e6), (1e6, 1e6 + 1)])
def test_ticks_are_round_inside_and_told_apart(low, high):
    found = report_svg.ticks(low, high)
    assert 2 <= len(found) <= 6
    slack = 1e-6 * (high - low)
    assert low - slack <= found[0] < found[-1] <= high + slack
    assert len(set(report_svg.tick_labels(found))) == len(found)


@pytest.mark.parametrize(("low", "high"), [(0.3, 40.0), (1e-8, 1e9), (1.1, 1.9)])
def test_log_ticks_are_inside(low, high):
    found = report_svg.log_ticks(low, high)
    assert 2 <= len(found) <= 7
    assert low <= found[0] < found[-1] <= high


def test_a_view_follows_the_posterior_and_says_when_it_cuts_the_prior():
    low, high, cut = report_svg.view([[1.0, 2.0]], [[-50.0, 50.0]], reach=1.0)
    assert -0.3 < low < 1.0
    assert 2.0 < high < 3.3
    assert cut
    assert not report_svg.view([[1.0, 2.0]], [[0.5, 2.5]])[2]
    assert report_svg.view([[0.1, 2.0]])[0] >= 0
    assert report_svg.view([[np.nan]], [[1.0, 2.0]])[0] <= 1.0
    assert report_svg.view([], []) == (0.0, 1.0, False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"pareto_k": 0.4, "pareto_k_limit": 0.67, "importance": False},
            "is 0.40; up to 0.67 they can be trusted, and importance=True",
        ),
        ({"pareto_k": 0.4, "pareto_k_limit": 0.67, "importance": True}, "and the draws were reweighted by them"),
        ({"pareto_k": 1.2, "pareto_k_limit": 0.67}, "far from the posterior: Pareto k of its importance ratios is 1.20"),
        ({}, "could not be judged"),
    ],
)
def test_a_guide_is_reported_with_its_judge(settings, words):
    tree = make_tree(chains=1, method="svi")
    tree.attrs["inference"] = json.dumps(settings)
    assert words in check(render(tree)).text


def test_a_fit_is_drawn_as_one_picture(tmp_path):
    result = Fit(make_tree())
    for what, count in (("parameters", 3), ("predictions", 1)):
        drawn = ET.fromstring(result.plot(tmp_path / f"{what}.svg", what).read_text())
        inner = [element for element in drawn if element.tag.endswith("svg")]
        assert len(inner) >= count
        captions = [element.text for element in drawn if element.tag.endswith("text")]
        assert len(captions) == len(inner) and all(captions)
    with pytest.raises(InputError, match="what is 'pie'"):
        result.plot(tmp_path / "pie.svg", "pie")
    with pytest.raises(InputError, match="does not exist"):
        result.plot(tmp_path / "none" / "x.svg")
    assert not (tmp_path / "pie.svg").exists()


def test_results_on_a_fit_have_sections_of_their_own(tree):
    """Those that were passed, with sentences, table and picture; sentences on each parameter stand there without being asked for."""
    import pandas as pd

    from bayes_mfg.inference import ConfidenceSet, Profile, Uniqueness
    from bayes_mfg.inference.report_findings import in_words, sections

    profile = Profile(
        "beta", 1.0, 0.0, np.array([0.5, 1.0, 2.0]), np.array([-2.0, 0.0, -2.0]), {0.95: ConfidenceSet(0.95, ((0.5, 2.0),), False, True)},
        (), np.zeros((3, 1)), ["x"], ("the level was reached", "a <reason>"), 0, 0, 0.0, 9,
    )  # fmt: skip
    draws = pd.DataFrame(
        [{"chain": 0, "draw": k, "trajectory": "1", "smallest": 0.1, "margin": m} for k, m in enumerate((0.05, 0.9))]
    )
    asked = pd.DataFrame(
        [
            {
                **dict.fromkeys(("costs", "dynamics", "terminal"), np.nan),
                "chain": 0,
                "draw": 0,
                "trajectory": "1",
                "spectral_radius": 2.0,
                "equilibria": 3,
                "converged": 9,
                "attract": 2,
            }
        ]
    )
    unique = Uniqueness(draws, asked, 4, 8, 1)
    one, two = sections([profile, unique])
    assert (
        one[1] == "Profile likelihood: beta"
        and "<svg" in one[2]
        and "open above: a &lt;reason&gt;" in one[2]
        and ">yes<" in one[2]
    )
    assert two[1] == "Is the equilibrium the only one?" and "The posterior touches a fold: at 1 of 2" in two[2]
    assert "several equilibria, up to 3" in two[2] and "Monotonicity was not checked" in two[2] and "not found again" in two[2]
    page = render(tree, [profile])
    assert "Profile likelihood: beta" in page and "What the data say about each parameter" in page
    said = in_words(tree, [])
    assert said.count("<li>") >= 1 and "of the prior&#x27;s" in said.replace("&#39;", "&#x27;")
    with pytest.raises(InputError, match="also holds 3; results with sentences"):
        sections([3])
