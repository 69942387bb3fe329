"""Protects tables [[intervention]]: what they may hold, and that a fit's report and `bayes-mfg intervene` show what they do."""

import types
from pathlib import Path

import pytest
import xarray as xr
from point_config import POINT_FIT

from bayes_mfg.cli import main
from bayes_mfg.commands.beside import answers
from bayes_mfg.config.calibration import Scenario, build_model, load_config, load_scenarios
from bayes_mfg.config.files import write_toml
from bayes_mfg.errors import ConfigError
from bayes_mfg.inference import Change, Close, Start, load

TABLES = """
[[intervention]]
kind = "Close"
state = "1"
start = 0.5
end = 1.0
scenario = "closure <1>"

[[intervention]]
kind = "Change"
parameter = "terminal_slope"
factor = 2
announced = false
draws = 5
scenario = "closure <1>"
start = 0.5

[[intervention]]
kind = "Start"
mu0 = [0.1, 0.1, 0.8]
"""
DATA = "time,state,count,total\n" + "".join(f"{t / 4},{s},{n},100\n" for t in range(7) for s, n in ((0, 20), (1, 30), (2, 50)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("lq.toml").write_text(POINT_FIT + TABLES, encoding="utf-8")
    Path("data.csv").write_text(DATA, encoding="utf-8")
    return tmp_path


def test_tables_become_scenarios(folder: Path) -> None:
    config = load_config("lq.toml", seed=3)
    together, alone = config.interventions["closure <1>"], config.interventions[""]
    assert together == Scenario((Close("1", 0.5, 1.0), Change("terminal_slope", factor=2, start=0.5, announced=False)), 5)
    assert alone == Scenario((Start([0.1, 0.1, 0.8]),))
    # The text with the seed as used makes the same again.
    Path("again.toml").write_text(config.text, encoding="utf-8")
    assert load_config("again.toml").interventions == config.interventions
    Path("only.toml").write_text(write_toml({"intervention": [{"kind": "Close", "state": "2"}]}), encoding="utf-8")
    assert load_scenarios("only.toml") == {"": Scenario((Close("2"),))}
    named = {"kind": "Start", "mu0": {"2": 0.8, "0": 0.2}}
    Path("only.toml").write_text(write_toml({"intervention": [named]}), encoding="utf-8")
    assert load_scenarios("only.toml")[""].changes == (Start({"2": 0.8, "0": 0.2}),)
    Path("lq.toml").write_text(POINT_FIT, encoding="utf-8")
    assert load_config("lq.toml").interventions == {}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('kind = "Close"', 'kind = "Shut"', '[intervention 1] kind = "Shut" is not known'),
        ('kind = "Close"', "", "[intervention 1] needs the key 'kind'"),
        ('state = "1"', "", "[intervention 1] needs the key 'state'"),
        ('state = "1"', 'place = "1"', "[intervention 1] does not take the key 'place'"),
        ("end = 1.0", "end = 0.5", "[intervention 1] Close: the window from 0.5 to 0.5 is empty"),
        ("end = 1.0", 'end = "late"', '[intervention 1] end = "late"; a number is needed'),
        ("factor = 2", "factor = 2\nadd = 1", "[intervention 2] Change: factor and add given"),
        ("mu0 = [0.1, 0.1, 0.8]", "mu0 = [0.1, 0.8]", "[intervention 3] Start: every row"),
        ("draws = 5", "draws = 0", "[intervention 2] draws = 0; a number of at least 1 is needed"),
        ("end = 1.0", "end = 1.0\ndraws = 4", "[intervention 2] draws = 5; another table of the scenario has 4"),
        ('scenario = "closure <1>"\n\n', "scenario = 1\n\n", "[intervention 1] scenario = 1; text is needed"),
        ('\n[[intervention]]\nkind = "Close"', '\n[intervention]\nkind = "Close"', "not valid TOML"),
    ],
)
def test_bad_tables_are_refused(folder: Path, old: str, new: str, words: str) -> None:
    assert old in TABLES
    Path("lq.toml").write_text(POINT_FIT + TABLES.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config("lq.toml")
    assert words in str(error.value)


def test_one_table_is_no_list(folder: Path) -> None:
    Path("lq.toml").write_text(POINT_FIT + '\n[intervention]\nkind = "Close"\nstate = "1"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tables \[\[intervention\]\] are needed"):
        load_config("lq.toml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('state = "1"', 'state = "9"', "no state '9'"),
        ("end = 1.0", "end = 9.0", "end of Close is 9"),
        ("terminal_slope", "slope", "no parameter 'slope'"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_the_fit(folder: Path, old: str, new: str, words: str) -> None:
    Path("lq.toml").write_text(POINT_FIT + TABLES.replace(old, new, 1), encoding="utf-8")
    config = load_config("lq.toml")
    with pytest.raises(ConfigError, match=r"lq.toml: \[intervention\]") as error:
        build_model(config)
    assert words in str(error.value)


def test_a_fit_shows_what_interventions_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In its report, in a report that is written again, and from the shell with other interventions."""
    assert main(["fit", "lq.toml", "--out", "run", "--quiet"]) == 0
    pages = [Path("run/report.html").read_text()]
    assert main(["report", "run", "--out", "again.html"]) == 0
    pages.append(Path("again.html").read_text())
    for page in pages:
        assert 'id="interventions"' in page and "<h3>closure &lt;1&gt;</h3>" in page
        assert (
            "Closing 1 from 0.5 to 1, announced from the beginning and terminal_slope times 2 from 0.5 on, by surprise." in page
        )
        assert "A start from 0.1 in 0, 0.1 in 1, 0.8 in 2." in page
    kept = load("run/fit.nc").tree["intervention"]
    assert sorted(kept.children) == ["0", "1"]
    assert kept["0"]["share"].sizes == {"side": 3, "quantile": 3, "time": 7, "state": 3}
    Path("only.toml").write_text('[[intervention]]\nkind = "Start"\nmu0 = [0.1, 0.1, 0.8]\n', encoding="utf-8")
    capsys.readouterr()
    assert main(["intervene", "run", "--with", "only.toml", "--out", "what.html"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("A start from 0.1 in 0, 0.1 in 1, 0.8 in 2.") and "page: what.html" in said and "difference" in said
    assert "A start from 0.1 in 0, 0.1 in 1, 0.8 in 2" in Path("what.html").read_text()
    # One without an answer costs no other its own; one that does not fit the model is refused before any is computed.
    start = '[[intervention]]\nkind = "Start"\nmu0 = [0.1, 0.1, 0.8]\nscenario = "start"\n'
    change = '[[intervention]]\nkind = "Change"\nparameter = "gamma"\nfactor = 0\nscenario = "none"\n'
    Path("two.toml").write_text(change + start, encoding="utf-8")
    assert main(["intervene", "run", "--with", "two.toml"]) == 1
    said, complaint = capsys.readouterr()
    assert said.startswith("start\nA start from 0.1 in 0") and " low " not in said
    assert "none has no answer: intervene: a parameter left its range in 1" in complaint
    Path("two.toml").write_text(start + change.replace("gamma", "slope"), encoding="utf-8")
    assert main(["intervene", "run", "--with", "two.toml"]) == 2
    said, complaint = capsys.readouterr()
    assert said == "" and "no parameter 'slope'" in complaint
    # What is refused leaves nothing.
    for arguments, words in (
        (["intervene", "nowhere"], "nowhere: there is no saved fit"),
        (["intervene", "run", "--with", "data.csv"], "data.csv: not valid TOML"),
        (["intervene", "run", "--with", "only.toml", "--draws", "5"], "num_draws is 5"),
        (["intervene", "run", "--out", "nowhere/x.html"], "does not exist"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err


class FakeFit:
    """A fit that runs out of memory where a state is closed."""

    def __init__(self) -> None:
        self.tree = {"posterior": xr.Dataset(coords={"chain": [0], "draw": [0, 1, 2]})}

    def intervene(self, *changes, num_draws, flows):
        if isinstance(changes[0], Close):
            raise MemoryError("too much")
        return num_draws, flows


def test_a_scenario_without_an_answer_costs_no_report() -> None:
    asked = {"shut": Scenario((Close("1"),)), "": Scenario((Start([1.0]),)), "few": Scenario((Start([1.0]),), 2)}
    asked["many"] = Scenario((Start([1.0]),), 9)
    found, failed = answers(FakeFit(), types.SimpleNamespace(interventions=asked))
    assert found == {"": (None, False), "few": (2, False), "many": (3, False)}
    assert failed == ["intervention shut has no answer (MemoryError: too much)"]
