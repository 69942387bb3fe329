"""Protects findings on a fit from the shell: the table [report] of a config, `bayes-mfg report --also`, and that a finding costs no report."""

import contextlib
import dataclasses
import io
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from point_config import POINT_FIT

from bayes_mfg.cli import main
from bayes_mfg.commands.beside import add_findings
from bayes_mfg.commands.printing import print_findings
from bayes_mfg.config.calibration import load_config
from bayes_mfg.config.report import FINDINGS, find
from bayes_mfg.errors import ConfigError, InputError
from bayes_mfg.inference import FitError, Uniqueness, load
from bayes_mfg.inference.report import render
from bayes_mfg.inference.uniqueness import SEARCHED

CONFIG = f"{POINT_FIT}seed = 3\n"
REPORT = """
[report]
also = ["uniqueness", "contraction"]
"""
DATA = "time,state,count,total\n" + "".join(f"{t / 4},{s},{n},100\n" for t in range(7) for s, n in ((0, 20), (1, 30), (2, 50)))
ALONE = "Is the equilibrium the only one?"
NO_WIDTH = "contraction could not be made (InputError: contraction: a point estimate has no width; fit with nuts or svi.)"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a run whose config asks for two findings, one of which a point estimate does not have; and what was printed."""
    folder = tmp_path_factory.mktemp("findings")
    (folder / "lq.toml").write_text(CONFIG + REPORT, encoding="utf-8")
    (folder / "data.csv").write_text(DATA, encoding="utf-8")
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said):
        assert main(["fit", "lq.toml", "--out", "run"]) == 0
    return folder, said.getvalue()


@pytest.fixture
def folder(fitted: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(fitted[0])
    return fitted[0]


def near_a_fold() -> Uniqueness:
    row = {"chain": 0, "draw": 0, "trajectory": "1", "smallest": 0.01, "margin": 0.05}
    return Uniqueness(pd.DataFrame([row]), pd.DataFrame([], columns=SEARCHED), 16, 64, 0)


def test_a_config_asks_for_findings(folder: Path, tmp_path: Path) -> None:
    config = load_config("lq.toml", seed=4)
    assert config.findings == ("uniqueness", "contraction")
    again = tmp_path / "again.toml"
    again.write_text(config.text, encoding="utf-8")
    assert load_config(again).findings == config.findings
    again.write_text(CONFIG, encoding="utf-8")
    assert load_config(again).findings == ()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            'also = ["unique"]',
            "[report] also = \"unique\" is not known (did you mean 'uniqueness'?); it is one of uniqueness, profiles",
        ),
        ('also = "uniqueness"', '[report] also = "uniqueness"; a list is needed'),
        ("also = [3]", "[report] also = 3 is not known"),
        ('also = ["profiles", "profiles"]', "[report] also has profiles twice; once is needed"),
        ("with = []", "[report] does not take the key 'with'; it takes also"),
    ],
)
def test_bad_tables_are_refused(table: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(f"{CONFIG}[report]\n{table}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "x.toml")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_fit_tells_what_was_found_and_why_not(fitted: tuple[Path, str]) -> None:
    """On the page and in words; a report that is written again has none of it, for the fit does not keep it."""
    folder, said = fitted
    page = (folder / "run/report.html").read_text(encoding="utf-8")
    assert f">{ALONE}</h2>" in page and "no second equilibrium was found, which proves nothing" in page
    assert f"\n{ALONE}:\nAt 1 equilibria of posterior draws" in said and f"\nwarning: {NO_WIDTH}\n" in said
    log = (folder / "run/run.log").read_text(encoding="utf-8")
    assert "Traceback" in log and f"{ALONE}:\nAt 1 equilibria" in log  # the page may be written again without it
    assert ALONE not in render(load(folder / "run/fit.nc").tree)


def test_a_report_with_findings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model is that of the run's config; what cannot be made costs neither the page nor the other findings."""
    assert main(["report", "run", "--out", "also.html", "--also", "contraction", "profiles", "profiles"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("Profile likelihood: gamma:\ngamma: ") and out.endswith("\nreport: also.html\n")
    assert out.count("gamma: ") == 1  # asked for twice, made once
    assert err == f"bayes-mfg: the report is written, but {NO_WIDTH}.\n"
    page = Path("also.html").read_text(encoding="utf-8")
    assert ">Profile likelihood: gamma</h2>" in page and ALONE not in page


def test_what_cannot_be_found_out_is_one_sentence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its config a run has no model; a page stays as it is where nothing was found."""
    before = Path("run/report.html").read_bytes()
    alone = tmp_path / "fit.nc"
    alone.write_bytes(Path("run/fit.nc").read_bytes())
    for words, status, message in (
        ([str(alone), "--also", "uniqueness"], 2, f"{tmp_path / 'config.toml'}: there is no such file; the model is made again from"),
        (["run", "--also", "contraction", "linear-widths"], 2, f"{NO_WIDTH}; linear-widths could not be made (InputError: linear_wi"),
        (["run", "--also"], 2, "expected at least one argument"),
        (["run", "--also", "everything"], 2, "invalid choice: 'everything'"),
    ):  # fmt: skip
        assert main(["report", *words]) == status
        out, err = capsys.readouterr()
        assert out == "" and message in err
    assert Path("run/report.html").read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["fit.nc"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FINDINGS, "uniqueness", failing(FitError("No equilibrium.")))
        assert main(["report", "run", "--also", "uniqueness", "contraction"]) == 1
    assert "(FitError: No equilibrium.); contraction could not" in capsys.readouterr().err
    assert Path("run/report.html").read_bytes() == before


def test_a_fold_is_told_first(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the summary of the page, and on the screen also where nothing else is said."""
    fit, found = load("run/fit.nc"), near_a_fold()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FINDINGS, "uniqueness", lambda *_: [found])
        assert add_findings(fit, ["uniqueness"], tmp_path, False) == ([found], [])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    summary = page[page.index('id="summary"') : page.index('id="parameters"')]
    assert "The posterior touches a fold: at 1 of 1 equilibria" in summary and page.count("touches a fold") == 2
    print_findings([found], say=lambda _: None)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"warning: {ALONE}: The posterior touches a fold")
    print_findings([found])
    assert capsys.readouterr().out.count("touches a fold") == 1


def failing(error: Exception):
    def make(*_):
        raise error

    return make


def test_a_finding_costs_no_report(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in one of them, or when the page is written with them; from the shell what nobody foresaw is an error."""
    fit, found = load("run/fit.nc"), near_a_fold()
    monkeypatch.setitem(FINDINGS, "uniqueness", lambda *_: [found])
    monkeypatch.setitem(FINDINGS, "profiles", failing(MemoryError("too much")))
    told = "profiles could not be made (MemoryError: too much)"
    assert add_findings(fit, ["profiles", "uniqueness"], tmp_path, False) == ([found], [told])
    (tmp_path / "report.html").unlink()
    assert add_findings(fit, ["profiles"], tmp_path, False) == ([], [told])
    assert not any(tmp_path.iterdir())
    _, (why,) = add_findings(fit, ["uniqueness"], tmp_path / "nowhere", False)
    assert why.startswith("the report could not be written with what was found (InputError: ")
    monkeypatch.setitem(FINDINGS, "contraction", lambda *_: ["no result"])
    _, (why,) = add_findings(fit, ["contraction"], tmp_path, False)
    assert "also holds 'no result'" in why and not any(tmp_path.iterdir())
    monkeypatch.setitem(FINDINGS, "contraction", failing(ZeroDivisionError("odd")))
    with pytest.raises(ZeroDivisionError):
        main(["report", "run", "--also", "contraction", "uniqueness", "--out", str(tmp_path / "page.html")])
    assert "margin" in (tmp_path / "page.html").read_text(encoding="utf-8")  # what was found is there
    (tmp_path / "page.html").unlink()
    part = types.SimpleNamespace(interrupted=True)
    assert add_findings(part, ["uniqueness"], tmp_path, False) == ([], ["uniqueness is left to the finished fit"])


def test_findings_are_asked_of_the_fit_and_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with the fit's seed and the progress that is wanted, where it has them."""
    heard = {}

    def listening(name):
        def make(*given, **options):
            heard[name] = given, options
            return {"a": found} if name == "profiles" else found

        return make

    found = near_a_fold()
    fit = types.SimpleNamespace(model="model", tree=types.SimpleNamespace(attrs={"seed": np.int64(7)}))
    for name in FINDINGS:
        monkeypatch.setattr(f"bayes_mfg.inference.{name.replace('-', '_')}", listening(name))
    monkeypatch.setattr("bayes_mfg.inference.profile_quantity.usual_quantities", lambda model: [model, "b"])
    assert all(find(fit, name, True) == [found] for name in FINDINGS)
    options = {"seed": 7, "progress": True}
    assert heard == {
        "uniqueness": ((fit,), options),
        "profiles": (("model", ["model", "b"]), {"at": fit, **options}),
        "contraction": ((fit,), {}),
        "linear-widths": ((fit,), {}),
        "identifiability": (("model", fit), options),
        "flows": ((fit,), {}),
    }


def test_profiles_that_are_not_made_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Profile:
        notes: tuple[str, ...] = ("a",)

    fit = types.SimpleNamespace(model="model", tree=types.SimpleNamespace(attrs={"seed": 7}))
    names = [f"q{k}" for k in range(30)]
    monkeypatch.setattr("bayes_mfg.inference.profiles", lambda model, asked, **_: {name: Profile() for name in asked})
    monkeypatch.setattr("bayes_mfg.inference.profile_quantity.usual_quantities", lambda model: names)
    found = find(fit, "profiles")
    assert len(found) == 24 and found[0] == Profile()
    assert found[-1].notes == (
        "a",
        "Of 30 quantities 6 were not profiled, from q24 to q29; ask for them by bm.inference.profile.",
    )
    names.clear()
    with pytest.raises(InputError, match="no unknown of this model can be profiled"):
        find(fit, "profiles")
