"""Configs take the readers of trips, of cumulative cases and of Auckland, with their options as tables."""

from pathlib import Path

import numpy as np
import pytest
from trip_files import STATIONS, gzipped, made_up, newer, text, write

from bayes_mfg.cli import main
from bayes_mfg.config.calibration import build_model, load_config
from bayes_mfg.data import Days, Places
from bayes_mfg.errors import ConfigError, DataError

CONFIG = """
[data]
reader = "citibike"
path = ["202408.csv", "202409.csv.gz"]
station_table = "stations.csv"
places = {zones = "town"}
days = {minutes = 120, kind = "weekday", holidays = ["2024-09-02"]}
fleet = 500

[game]
name = "BikeShare"
n_states = 4
states = ["Hoboken", "Jersey City", "External", "In transit"]

[paths.base_rate]
family = "Constant"
prior = {distribution = "HalfNormal", scale = 1.0}

[observation]
kind = "DirichletMultinomial"

[inference]
method = "point"
prior_samples = 0
max_steps = 5
"""


@pytest.fixture
def config(tmp_path):
    write(tmp_path, "202408.csv", newer(made_up(first="2024-08-19")))
    write(tmp_path, "202409.csv.gz", gzipped(newer(made_up(seed=1))))
    towns = {"J": "Jersey City", "H": "Hoboken", "5": ""}
    write(tmp_path, "stations.csv", text([["name", "town"], *([name, towns[key[0]]] for name, (key, *_) in STATIONS.items())]))
    return write(tmp_path, "city.toml", CONFIG)


def test_a_config_names_months_a_table_of_stations_and_days(config, monkeypatch, tmp_path_factory):
    """Files are relative to the config, wherever it is read from."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    loaded = load_config(config)
    assert loaded.reader_options["places"] == Places(zones="town")
    assert loaded.reader_options["days"] == Days(minutes=120, kind="weekday", holidays=["2024-09-02"])
    population = build_model(loaded).population
    assert population.states == ("Hoboken", "Jersey City", "External", "In transit")
    assert population.n_trajectories == 9
    assert population.counts.shape == (9, 9, 4)
    np.testing.assert_array_equal(population.totals, 500)
    # As used, for the run's folder: every file is absolute, so that the text serves from there.
    used = load_config(write(tmp_path_factory.mktemp("run"), "used.toml", loaded.text))
    assert used.reader_options == loaded.reader_options
    assert all(Path(one).is_absolute() for one in [*used.content["data"]["path"], used.content["data"]["station_table"]])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('{zones = "town"}', "{zone = 3}", ["[data.places]", "'zones'"]),
        ('{zones = "town"}', "{external = true}", ["[data.places]", "neither stations nor zones is given"]),
        ("minutes = 120", "minutes = 7", ["[data.days]", "minutes is 7"]),
        ("fleet = 500", "fleet = 500\nprogress = true", ["[data]", "'progress'"]),
        ("fleet = 500", "fleet = true", ["[data] fleet = true"]),
        ('places = {zones = "town"}', "", ["[data] needs the key 'places'"]),
        ('"202408.csv", ', "3, ", ["[data] path[0] = 3", "text"]),
    ],
)
def test_a_config_is_refused_before_anything_is_read(config, old, new, words):
    assert CONFIG.count(old) == 1
    config.write_text(CONFIG.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_config(config)
    assert all(word in str(caught.value) for word in words), caught.value


def test_what_the_reader_refuses_says_where(config):
    config.write_text(CONFIG.replace("fleet = 500", "fleet = 5"))
    with pytest.raises(ConfigError, match=r"city\.toml: \[data\] fleet is 5; 2024-0\d-\d\d cannot have happened"):
        build_model(load_config(config))
    (config.parent / "202408.csv").unlink()
    with pytest.raises(DataError, match=r"202408\.csv: there is no such file"):
        build_model(load_config(config))


@pytest.mark.slow
def test_fit_takes_trips(config, tmp_path, capsys):
    assert main(["fit", str(config), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").is_file()
    capsys.readouterr()


def test_cumulative_cases_are_a_reader(tmp_path):
    days = "\n".join(f"2020-01-{day:02d},{10 * day}" for day in range(1, 30))
    write(tmp_path, "cases.csv", f"date,cases\n{days}\n")
    reader = '[data]\nreader = "cumulative_cases"\npath = "cases.csv"\npopulation = 1000\nevery = 7\n'
    game = '[game]\nname = "SIR"\ncontact_cost = 1.0\ninfection_cost = 1.0\n[paths.recovery]\nvalue = 0.1\n'
    rest = '[paths.beta]\nfamily = "Constant"\n[observation]\nkind = "Binomial"\nstates = ["I"]\n[initial]\nkind = "Seeded"\n'
    population = build_model(load_config(write(tmp_path, "run.toml", reader + game + rest))).population
    assert population.counts[0, :, 1].tolist() == [70, 70, 70, 70]
