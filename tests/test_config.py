"""Protects the door of the command line: what a config may hold, and that all else is refused with a sentence that says where."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpyro.distributions as dist
import pytest

from bayes_mfg import models, paths
from bayes_mfg.config.calibration import GAMES, READERS, _inference, build_model, load_config
from bayes_mfg.config.files import write_toml
from bayes_mfg.config.simulation import load_simulation
from bayes_mfg.config.values import Place, distribution, toml_value
from bayes_mfg.errors import ConfigError, InputError
from bayes_mfg.reproduce.study import load_study

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SCHOOL = (EXAMPLES / "school_outbreak.toml").read_text(encoding="utf-8")
LQ = (EXAMPLES / "simulate_lq.toml").read_text(encoding="utf-8")


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the config"
    return text.replace(old, new)


PRIOR = 'prior = {distribution = "LogNormal", loc = 0.405, scale = 0.5}'
READER = 'reader = "school_influenza"'
FAMILY = 'family = "Constant"             # other'
GAMMA = 'gamma = {shape = "arc", low = 0.1, rise = 2.9}'
# (what is replaced in the school's config, by what, fragments of the sentence)
BAD = [
    ('[game]\nname = "SIR"', '[gmae]\nname = "SIR"', ["[gmae]", "did you mean 'game'"]),
    ('[game]\nname = "SIR"', "[output2]\n[game]\nname = 'SIR'", ["[output2]", "it takes data, game"]),
    ('name = "SIR"', 'name = "SIRS"', ["[game] name", '"SIRS"', "did you mean 'SIR'", "LinearQuadratic"]),
    ('name = "SIR"', "name = 3", ["[game] name = 3"]),
    ('name = "SIR"', "", ["[game] needs the key 'name'"]),
    ("infection_cost = 1.0", "infektion_cost = 1.0", ["[game]", "'infektion_cost'", "did you mean 'infection_cost'"]),
    ("infection_cost = 1.0", 'infection_cost = "1"', ["[game] infection_cost", '"1"', "a number"]),
    ("infection_cost = 1.0", "infection_cost = true", ["[game] infection_cost = true", "a number"]),
    ("infection_cost = 1.0", "infection_cost = nan", ["[game] infection_cost = nan", "finite"]),
    ("infection_cost = 1.0", "infection_cost = -1.0", ["[game] SIR: infection_cost is -1.0", "[0, inf]"]),
    ("infection_cost = 1.0", "infection_cost = [1.0, 2.0]", ["[game] SIR: infection_cost has shape (2,)"]),
    ("infection_cost = 1.0", "contact_cost = 1.0", ["contact_cost", "[game]", "[paths.contact_cost]", "once"]),
    (READER, 'reader = "school_flu"', ["[data] reader", '"school_flu"', "fluview, table"]),
    (READER, "", ["[data] needs the key 'reader'"]),
    (READER, 'reader = "school_influenza"\npath = "x.csv"', ["[data]", "'path'"]),
    (READER, 'reader = "fluview"', ["[data] needs the key 'path'", "--data"]),
    (READER, 'reader = "fluview"\npath = "x"\nweeks = 2.5', ["[data] weeks = 2.5", "a whole number"]),
    (READER, 'reader = "fluview"\npath = "x"\nonset = {treshold = 2}', ["[data.onset]", "'threshold'"]),
    (READER, 'reader = "fluview"\npath = "x"\nonset = {threshold = 0}', ["[data.onset]", "threshold is 0"]),
    (READER, 'reader = "table"\npath = "x"\nstates = "SIR"', ["[data] states", '"SIR"', "a list"]),
    (READER, 'reader = "table"\npath = "x"\nstates = [1]', ["[data] states[0] = 1", "text"]),
    ("[paths.beta]", "[paths.betta]", ["[paths]", "'betta'", "did you mean 'beta'"]),
    ("[paths.beta]", "[path.beta]", ["[path]", "did you mean 'paths'"]),
    (FAMILY, 'family = "Constnt"   # other', ["[paths.beta] family", '"Constnt"', "'Constant'"]),
    (FAMILY, "# other", ["[paths.beta] needs the key 'family'", "GaussianProcess"]),
    (FAMILY, "value = 1.0  # other", ["[paths.beta]", "'prior'", "it takes value"]),
    (PRIOR, 'prior = {distribution = "Normal", loc = 1.0, scale = 0.5}', ["[paths.beta]", "Normal(loc=1,", "(0, inf)"]),
    (PRIOR, 'prior = {distribution = "LogNormall", loc = 1.0}', ["[paths.beta.prior] distribution", "did you mean 'LogNormal'"]),
    (PRIOR, 'prior = {distribution = "LogNormal", lok = 1.0}', ["[paths.beta.prior]", "'lok'", "loc, scale"]),
    (PRIOR, 'prior = {distribution = "LogNormal", loc = 0.4, scale = -0.5}', ["[paths.beta.prior] scale = -0.5", "positive"]),
    (PRIOR, 'prior = {distribution = "LogNormal", scale = true}', ["[paths.beta.prior] scale = true", "a number"]),
    (PRIOR, 'prior = {distribution = "Uniform", low = 2, high = 1}', ["[paths.beta.prior]", "empty interval from 2 to 1"]),
    (PRIOR, 'prior = {distribution = "Gamma"}', ["[paths.beta.prior]", "Gamma"]),
    (PRIOR, 'prior = {distribution = "Poisson", rate = 2.0}', ["[paths.beta]", "discrete"]),
    (PRIOR, 'prior = "wide"', ["[paths.beta]", "'wide'"]),
    (PRIOR, 'prior = 1979-05-27', ["[paths.beta] prior = 1979-05-27"]),
    (PRIOR, 'priors = 1.0', ["[paths.beta]", "did you mean 'prior'"]),
    (PRIOR, 'prior = -1.0', ["[paths.beta]", "[0, inf]"]),
    (PRIOR, 'prior = [1.0, [2.0]]', ["[paths.beta]", "[2.0]", "a number is needed"]),
    (PRIOR, 'prior = {distribution = "LogNormal", loc = [1, [2]], scale = 1}', ["[paths.beta.prior] loc", "equal lengths"]),
    (PRIOR, 'prior = {distribution = "LogNormal", loc = 10000000000000000000000000, scale = 1}', ["loc", "2^53"]),
    (FAMILY, 'family = "Spline"\nknots = 4.5 #', ["[paths.beta] knots = 4.5", "a whole number or a list"]),
    ('kind = "BetaBinomial"', 'kind = "Poisson"', ["[observation] kind", '"Poisson"', "Multinomial"]),
    ('kind = "BetaBinomial"', 'kind = "BetaBinomial"\nconcentration = -3', ["[observation]", "concentration is -3"]),
    ('kind = "BetaBinomial"', 'kind = "BetaBinomial"\nnoise = 3', ["[observation]", "'noise'", "concentration, states"]),
    ('kind = "BetaBinomial"', 'kind = "BetaBinomial"\nconcentration = true', ["[observation] concentration = true"]),
    ('states = ["I"]', 'states = ["Q"]', ["[observation]", "'Q'", "S, I, R"]),
    ('states = ["I"]', 'states = ["R"]', ["[observation]", "'R'", "never observed"]),
    ('states = ["I"]', "states = 5", ["[observation]", "states"]),
    ('kind = "BetaBinomial"\nstates = ["I"]', 'kind = "Dirichlet"', ["[observation]", "Dirichlet"]),
    ('kind = "Seeded"', 'kind = "Seded"', ["[initial] kind", "did you mean 'Seeded'"]),
    ('seed = "I"', 'seed = "E"', ["[initial]", "'E'"]),
    ('seed = "I"', 'seed = "I"\nshare = {distribution = "LogNormal"}', ["[initial]", "share", "(0, 1)"]),
    ('kind = "Seeded"\nseed = "I"\nrest = "S"', 'kind = "Known"', ["[initial] needs the key 'mu0'"]),
    ('kind = "Seeded"\nseed = "I"\nrest = "S"', 'kind = "Known"\nmu0 = [0.5, 0.1, 0.1]', ["[initial]", "sum to one"]),
    ('kind = "Seeded"\nseed = "I"\nrest = "S"', 'kind = "FirstObserved"', ["[initial]", "not fully observed"]),
    ("horizon = 20.0", "horizon = 5.0", ["[grid] horizon = 5.0", "until 13"]),
    ("horizon = 20.0", 'horizon = "long"', ["[grid] horizon", '"long"', "a number"]),
    ("horizon = 20.0", "substeps = 0", ["[grid] substeps = 0"]),
    ("horizon = 20.0", "substeps = 1.5", ["[grid] substeps = 1.5", "a whole number"]),
    ("horizon = 20.0", 'scheme = "euler"', ["[grid]", "euler"]),
    ("horizon = 20.0", 'method = "newtn"', ["[grid] method", "did you mean 'newton'"]),
    ("horizon = 20.0", "horizon = 1e15", ["horizon is 1e+15", "too far"]),
    ("horizon = 20.0", "horizon = 1e308", ["horizon is 1e+308", "too far"]),
    ("horizon = 20.0", "substeps = 10000000000000000", ["[grid] substeps", "2^53"]),
    ("horizon = 20.0", "substeps = 1000000000", ["intervals allowed"]),
    ("horizon = 20.0", "points = 3", ["[grid]", "'points'", "horizon, substeps, scheme, method"]),
    ('method = "nuts"', 'method = "hmc"', ["[inference] method", '"hmc"', "nuts, svi, point"]),
    ("num_chains = 4", "num_chains = 0", ["[inference] num_chains = 0", "at least 1"]),
    ("num_chains = 4", "num_chains = true", ["[inference] num_chains = true", "a whole number"]),
    ("num_chains = 4", 'num_chains = "four"', ["[inference] num_chains", '"four"']),
    ("num_chains = 4", "num_chain = 4", ["[inference]", "'num_chain'", "did you mean 'num_chains'"]),
    ("num_samples = 600", "num_samples = -600", ["[inference] num_samples = -600"]),
    ("num_samples = 600", "guide = 'full'", ["[inference]", "'guide'", "num_samples"]),
    ("target_accept_prob = 0.98", "target_accept_prob = 95", ["[inference] target_accept_prob = 95", "below 1"]),
    ("seed = 0\n", "seed = -1\n", ["[inference] seed = -1"]),
    ("prior_samples = 500", "prior_samples = 1e3", ["[inference] prior_samples = 1000.0", "a whole number"]),
    ("title =", "titel =", ["[output]", "did you mean 'title'"]),
    ("title = ", "title = 5 # ", ["[output] title = 5", "text"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "fragments"), BAD, ids=[new.replace("\n", " ")[:60] for _, new, _ in BAD])
def test_a_bad_config_is_refused_with_its_place(old: str, new: str, fragments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(changed(SCHOOL, old, new), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        build_model(load_config(file))
    message = str(caught.value)
    assert message.startswith(f"{file}:")
    assert all(fragment in message for fragment in fragments), message
    assert "\n" not in message


NOT_TOML = [
    (b"[data\n", "line 1"),
    (b"[data]\nreader = school\n", "line 2"),
    (b"[data]\n[data]\n", "line 2"),
    (b"\xff\xfe[data]", "UTF-8"),
]


@pytest.mark.parametrize(("content", "fragment"), NOT_TOML)
def test_what_is_no_toml_is_refused_with_its_line(content: bytes, fragment: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(file))) as caught:
        load_config(file)
    assert fragment in str(caught.value)


@pytest.mark.parametrize("name", ["data", "game", "paths", "observation"])
def test_tables_that_every_config_needs(name: str, tmp_path: Path) -> None:
    content = tomllib.loads(SCHOOL)
    del content[name]
    file = tmp_path / "run.toml"
    file.write_text(write_toml(content), encoding="utf-8")
    with pytest.raises(InputError, match=rf"the table \[{name}\] is missing"):
        load_config(file)


def test_the_school_config_makes_the_model_that_it_describes() -> None:
    config = load_config(EXAMPLES / "school_outbreak.toml")
    model = build_model(config)
    assert config.text == SCHOOL
    assert (config.method, config.seed, config.prior_samples) == ("nuts", 0, 500)
    assert config.options["num_chains"] == 4
    assert model.grid.times[-1] == 20.0
    assert float(np.asarray(model.game.infection_cost)) == 1.0
    assert set(model.paths) == {"beta", "recovery", "contact_cost"}
    assert model.population.totals is not None and set(model.population.totals.ravel()) == {763}
    assert isinstance(model.observation, models.BetaBinomial)
    assert isinstance(model.initial, models.Seeded)


def test_every_game_reader_and_family_can_be_named() -> None:
    """A new class needs no line here: the registries are read."""
    assert {"SIR", "LinearQuadratic"} <= set(GAMES)
    assert {"school_influenza", "fluview", "table", "trips", "citibike", "bay_area", "cumulative_cases"} <= set(READERS)
    assert set(paths.FAMILIES) >= {"Constant", "GaussianProcess", "RandomWalk", "Spline", "PiecewiseConstant", "Neural"}


FIELDS = [
    ('family = "GaussianProcess"\nlength_scale = {distribution = "Gamma", concentration = 5.0, rate = 1.0}', "GaussianProcess"),
    ('family = "Spline"\nknots = [0, 4, 8, 13]\ndegree = 2\ncentered = true', "Spline"),
    ('family = "Neural"\nbody = "random"\nbody_seed = 3', "Neural"),
    ('family = "Neural"\ninput = ["time", "population"]\nwidth = 4\nlink = {kind = "Softplus", floor = 0.1}', "Neural"),
    ('family = "RandomWalk"\nscale = {distribution = "HalfNormal", scale = 0.5}\nlevel = 1', "RandomWalk"),
    ('family = "Spline"\ninput = "population"\nstates = ["I"]', "Spline"),
    ('family = "PiecewiseConstant"\nknots = 4', "PiecewiseConstant"),
    ("value = 2", "Constant"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "family"), FIELDS)
def test_paths_take_the_fields_of_their_family(fields: str, family: str, tmp_path: Path) -> None:
    old = SCHOOL[SCHOOL.index("[paths.beta]") : SCHOOL.index("[paths.recovery]")]
    file = tmp_path / "run.toml"
    file.write_text(changed(SCHOOL, old, f"[paths.beta]\n{fields}\n\n"), encoding="utf-8")
    model = build_model(load_config(file))
    assert type(model.paths["beta"]).__name__ == family


def test_distributions_are_those_of_numpyro() -> None:
    place = Place("x.toml", "paths.beta.prior")
    made = distribution({"distribution": "TruncatedNormal", "loc": 1.0, "scale": 2.0, "low": 0.0}, place)
    assert float(np.asarray(made.support.lower_bound)) == 0.0
    gamma = distribution({"distribution": "Gamma", "concentration": [2.0, 3.0], "rate": 1}, place)
    assert isinstance(gamma, dist.Gamma)
    assert gamma.shape() == (2,)


def test_an_ensemble_has_its_own_options() -> None:
    place = Place("x.toml", "inference")
    table = {"method": "ensemble", "members": 5, "randomised": "prior", "seed": 2}
    assert _inference(table, place) == ("ensemble", 2, 500, {"members": 5, "randomised": "prior"})
    for odd, words in (
        ({"members": 1}, "at least 2"),
        ({"randomised": "data"}, "both, prior, none"),
        ({"keep": "some"}, "all, parameters"),
        ({"guide": "full"}, "guide"),
    ):
        with pytest.raises(ConfigError, match=words):
            _inference({**table, **odd}, place)


def test_overrides_are_in_the_text_that_is_kept(tmp_path: Path) -> None:
    config = load_config(EXAMPLES / "school_outbreak.toml", method="svi", seed=7)
    assert (config.method, config.seed, config.prior_samples, config.options) == ("svi", 7, 500, {})
    (note,) = config.notes
    assert "num_chains" in note and "target_accept_prob" in note
    file = tmp_path / "config.toml"
    file.write_text(config.text, encoding="utf-8")
    again = load_config(file)
    assert again.content == config.content
    assert again.text == config.text


def test_paths_of_data_are_relative_to_the_config_and_overridden_by_data(tmp_path: Path) -> None:
    text = changed(SCHOOL, 'reader = "school_influenza"', 'reader = "table"\npath = "sub/x.csv"')
    file = tmp_path / "run.toml"
    file.write_text(text, encoding="utf-8")
    config = load_config(file)
    assert config.reader_options["path"] == str(tmp_path / "sub" / "x.csv")
    assert tomllib.loads(config.text)["data"]["path"] == str(tmp_path / "sub" / "x.csv")
    with pytest.raises(InputError, match="there is no such file"):
        build_model(config)
    other = load_config(file, data="elsewhere.csv")
    assert other.reader_options["path"] == "elsewhere.csv"
    assert tomllib.loads(other.text)["data"]["path"] == str(Path("elsewhere.csv").absolute())
    with pytest.raises(InputError, match=r"reads no file, so --data y\.csv has no meaning"):
        load_config(EXAMPLES / "school_outbreak.toml", data="y.csv")


VALUES: list[Any] = [
    {"a": 1, "b": 2.5, "c": True, "d": 'quo"te \\ \n é \x7f', "e": [1, [2.0, "x"]], "f": {"g": 1e-300, "strange key": -0.0}},
    {"t": {"x": [{"y": 1}]}, "u": {}},
]


@pytest.mark.parametrize("content", VALUES)
def test_written_toml_reads_back(content: dict[str, Any]) -> None:
    assert tomllib.loads(write_toml(content)) == content
    assert tomllib.loads(f"x = {toml_value(content)}") == {"x": content}


@pytest.mark.parametrize("name", [path.name for path in EXAMPLES.glob("*.toml")])
def test_examples_are_configs(name: str) -> None:
    """The examples that fit need no data to be checked; those that simulate are simulations."""
    if name.startswith("simulate"):
        load_simulation(EXAMPLES / name)
    elif name.startswith("study"):
        load_study(EXAMPLES / name)
    elif name == "influenza_state.toml":
        load_config(EXAMPLES / name, data="wherever.csv.gz")
    else:
        load_config(EXAMPLES / name)


BAD_SIMULATIONS = [
    ("n_states = 3", "n_states = 1", ["[game]", "n_states is 1"]),
    ("n_states = 3", "n_states = 3.0", ["[game] n_states = 3.0", "a whole number"]),
    ('shape = "arc", low = 0.1', 'shape = "ark", low = 0.1', ["[parameters.gamma] shape", "did you mean 'arc'"]),
    ("rise = 2.9}", "rize = 2.9}", ["[parameters.gamma]", "'rize'", "low, rise"]),
    (GAMMA, "gamma = -1", ["[parameters] gamma = -1", "between 0 and inf"]),
    (GAMMA, "gamma = [1.0, [2.0]]", ["[parameters] gamma", "equal lengths"]),
    ("n_states = 3", "n_states = 1000000", ["n_states is 1000000"]),
    ("trajectories = 10", "trajectories = 100000000000000", ["[initial] trajectories", "from 1 to 1000000"]),
    (GAMMA, "gamma = [1, 2]", ["[parameters] gamma", "2 values", "100 points"]),
    (GAMMA, "", ["[parameters]", "'gamma'"]),
    (GAMMA, 'gamma = {shape = "population", low = 1, rise = 1, state = "9"}', ["gamma] state", "0, 1, 2"]),
    ("trajectories = 10", "trajectories = 0", ["[initial] trajectories = 0"]),
    ("trajectories = 10", "mu0 = [[0.5, 0.5]]", ["[initial]", "'concentration'"]),
    ("horizon = 2.0", "horizon = -2.0", ["[grid]", "horizon is -2.0"]),
    ("horizon = 2.0", "", ["[grid] needs the key 'horizon'"]),
    ("size = 1e-3", "", ["[noise] needs the key 'size'"]),
    ("size = 1e-3", "size = 0.0", ["size", "0.0", "positive"]),
    ('kind = "dirichlet"', 'kind = "dirichlett"', ["[noise] kind", "did you mean 'dirichlet'"]),
    ("seed = 0", "seed = -5", ["[simulation] seed = -5"]),
    ("observe_every = 1", "observe_every = 0", ["observe_every is 0"]),
    ("observe_every = 1", "observe = 1", ["[simulation]", "'observe'", "observe_every"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "fragments"), BAD_SIMULATIONS, ids=[new[:60] for _, new, _ in BAD_SIMULATIONS])
def test_a_bad_simulation_is_refused_with_its_place(old: str, new: str, fragments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "sim.toml"
    file.write_text(changed(LQ, old, new), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_simulation(file).run()
    message = str(caught.value)
    assert message.startswith(f"{file}:")
    assert all(fragment in message for fragment in fragments), message
