"""Protects long runs: a fit that was stopped goes on to the same draws, whenever it was stopped, and a checkpoint of another fit is refused."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from one_unknown import NOISE, Fragile, calibration, simulated

from bayes_mfg.errors import InputError
from bayes_mfg.inference import Fit, fit, nuts
from bayes_mfg.inference.checkpoint import Checkpoint
from bayes_mfg.inference.files import locked
from bayes_mfg.models import Calibration

pytestmark = pytest.mark.slow

NUTS: dict[str, Any] = {
    "method": "nuts",
    "num_chains": 2,
    "num_warmup": 110,
    "num_samples": 120,
    "prior_samples": 0,
    "starts": 1,
    "seed": 3,
}
SVI: dict[str, Any] = {
    "method": "svi",
    "guide": "mean-field",
    "num_steps": 350,
    "num_samples": 50,
    "num_particles": 2,
    "prior_samples": 0,
    "starts": 1,
}


@pytest.fixture(scope="module")
def model() -> Calibration:
    """Gamma beyond 1.6 has no equilibrium, so that some transitions end at a failed solve and are run again."""
    return calibration(simulated(noise="dirichlet", size=NOISE, seed=1), Fragile(1.6))


@pytest.fixture(scope="module", params=[NUTS, SVI], ids=["nuts", "svi"])
def whole(request: pytest.FixtureRequest, model: Calibration, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path, Fit]:
    """Options, and checkpoint and fit that they give when nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole") / "checkpoint"
    return request.param, folder, fit(model, **request.param, checkpoint=folder)


def same(one: Fit, other: Fit) -> None:
    """Every figure of both, bit for bit."""
    assert set(one.tree.children) == set(other.tree.children)
    for group in one.tree.children:
        a, b = one.tree[group].to_dataset(), other.tree[group].to_dataset()
        xr.testing.assert_identical(a.drop_attrs(), b.drop_attrs())
        for name in a.data_vars:
            assert a[name].to_numpy().tobytes() == b[name].to_numpy().tobytes(), name
    assert one.warnings == other.warnings
    told = [json.loads(each.tree.attrs["inference"]) for each in (one, other)]
    assert told[0] == told[1]


def beginnings(folder: Path) -> Iterator[list[str]]:
    """What may be there after a kill: of every stage a beginning of its sequence, no stage before the mode."""
    stages: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.npz")):
        stages.setdefault(path.name.rpartition("-")[0], []).append(path.name)
    assert stages.pop("mode") == ["mode-000000.npz"]
    yield []
    for lengths in itertools.product(*(range(len(files) + 1) for files in stages.values())):
        yield ["mode-000000.npz", *(name for files, n in zip(stages.values(), lengths, strict=True) for name in files[:n])]


def test_a_checkpoint_changes_nothing(whole: tuple[dict, Path, Fit], model: Calibration) -> None:
    options, folder, undisturbed = whole
    same(fit(model, **options), undisturbed)
    counts = {"nuts": ("nuts-0", 6), "svi": ("svi", 4)}
    stage, count = counts[options["method"]]
    assert len(list(folder.glob(f"{stage}-*.npz"))) == count


def test_a_fit_goes_on_from_any_beginning_to_the_same_draws(
    whole: tuple[dict, Path, Fit], model: Calibration, tmp_path: Path
) -> None:
    """Every stage may have come as far as it likes, and something may have been in the middle of being written."""
    options, folder, undisturbed = whole
    possible = list(beginnings(folder))
    chosen = [possible[k] for k in np.random.default_rng(0).permutation(len(possible))[:5]]
    for number, names in enumerate(chosen):
        copy = tmp_path / str(number)
        copy.mkdir()
        for name in ("about.json", *names):
            shutil.copy(folder / name, copy / name)
        (copy / ".svi-000001.npz.k3x.part").write_bytes(b"PK")
        same(fit(model, **options, checkpoint=copy, resume=True), undisturbed)


def test_what_a_checkpoint_holds_is_not_made_again(
    whole: tuple[dict, Path, Fit], model: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, folder, undisturbed = whole

    def never(*_: Any, **__: Any) -> None:
        pytest.fail("made again")

    monkeypatch.setattr("bayes_mfg.inference.point.find_mode", never)
    monkeypatch.setattr(nuts._Chains, "go_on", never)
    monkeypatch.setattr(Checkpoint, "write", never)
    same(fit(model, **options, checkpoint=folder, resume=True), undisturbed)


def interrupting(monkeypatch: pytest.MonkeyPatch, stage: str, number: int) -> None:
    """Send an interrupt when file `number` of a stage is written, and wait until the main thread has heard it."""
    write: Callable[..., None] = Checkpoint.write

    def watched(self: Checkpoint, name: str, k: int, arrays: Any) -> None:
        write(self, name, k, arrays)
        if (name, k) == (stage, number):
            while name == "nuts-0" and len(nuts.layout(2)) == 2 and not self._path("nuts-1", k).exists():
                time.sleep(0.01)  # the other thread must have come as far
            os.kill(os.getpid(), signal.SIGINT)
            if threading.current_thread() is not threading.main_thread():
                threading.Event().wait(0.5)

    monkeypatch.setattr(Checkpoint, "write", watched)


def test_an_interrupt_leaves_a_fit_of_the_draws_so_far(
    model: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = fit(model, **NUTS)
    folder = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        interrupting(patch, "nuts-0", 3)  # the first draws after three files of warm-up
        part = fit(model, **NUTS, checkpoint=folder)
    assert part.interrupted and not undisturbed.interrupted
    count = part.tree["posterior"].sizes["draw"]
    assert 50 <= count < 120 and count % 50 == 0
    assert part.warnings[0] == f"Interrupted: the chains ended after {count} draws each."
    assert json.loads(part.tree.attrs["inference"])["num_samples"] == count
    for group in ("posterior", "sample_stats"):
        first = undisturbed.tree[group].to_dataset().isel(draw=slice(count))
        xr.testing.assert_identical(part.tree[group].to_dataset().drop_attrs(), first.drop_attrs())
    part.summary()
    same(fit(model, **NUTS, checkpoint=folder, resume=True), undisturbed)


def test_an_interrupt_before_there_are_draws_is_passed_on(
    model: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupting(monkeypatch, "nuts-0", 0)
    with pytest.raises(KeyboardInterrupt):
        fit(model, **NUTS, checkpoint=tmp_path / "checkpoint")


def test_an_interrupted_guide_says_so(model: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupting(monkeypatch, "svi", 1)
    part = fit(model, **SVI, checkpoint=tmp_path / "checkpoint")
    assert part.interrupted
    assert "Interrupted after 100 of 350 variational updates; the guide may not have settled." in part.warnings


def test_a_checkpoint_of_another_fit_is_refused(whole: tuple[dict, Path, Fit], model: Calibration) -> None:
    options, folder, _ = whole
    before = {path: path.read_bytes() for path in folder.iterdir()}
    other = {"method": "svi"} if options["method"] == "nuts" else {"method": "nuts", "num_samples": 100}
    data = simulated(noise="dirichlet", size=NOISE, seed=2)
    for fragment, wrong, changed in (
        ("options, seed differ", model, {"seed": 4, "starts": 2}),
        (f"seed differs (seed was {options.get('seed', 0)} and is 4)", model, {"seed": 4}),
        ("method", model, other),
        ("data differs", calibration(data, Fragile(1.6)), {}),
        ("paths differs", calibration(model.population, Fragile(1.6), gamma=dist.LogNormal(0.1, 1.0)), {}),
        ("solver differs", calibration(model.population, Fragile(1.6), scheme="paper"), {}),
    ):
        with pytest.raises(InputError) as caught:
            fit(wrong, **(options | changed), checkpoint=folder, resume=True)
        assert fragment in str(caught.value)
    # What words do not tell: the density at the mode does.
    with pytest.raises(InputError, match="its mode has the potential"):
        fit(calibration(model.population, Steeper(1.6)), **options, checkpoint=folder, resume=True)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


class Steeper(Fragile):
    """A game of the same words and other numbers."""

    def terminal_cost(self, t: Any, mu: Any, params: Any) -> Any:
        return 1.1 * super().terminal_cost(t, mu, params)


Steeper.__name__ = "Fragile"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "svi-000001.npz").write_bytes((f / "svi-000001.npz").read_bytes()[:100]), "svi-000001.npz is damaged"),
        (lambda f: (f / "about.json").write_text("{"), "about.json is damaged"),
        (lambda f: (f / "about.json").write_text("[]"), "about.json is damaged"),
        (lambda f: (f / "about.json").unlink(), "is no checkpoint: it holds mode-000000.npz and no about.json"),
        (lambda f: shutil.copy(f / "mode-000000.npz", f / "svi-000000.npz"), "state of another sampler"),
    ],
)
def test_a_damaged_checkpoint_is_refused(damage: Callable[[Path], Any], message: str, model: Calibration, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    fit(model, **SVI, checkpoint=folder)
    damage(folder)
    with pytest.raises(InputError, match=message):
        fit(model, **SVI, checkpoint=folder, resume=True)


def test_a_folder_in_use_is_refused(model: Calibration, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for options, message in (
        ({"checkpoint": tmp_path}, "is not empty; resume=True goes on"),
        ({"checkpoint": tmp_path, "resume": True}, "is no checkpoint: it holds notes.txt"),
        ({"checkpoint": tmp_path / "notes.txt"}, "is no folder"),
        ({"checkpoint": tmp_path / "a" / "b"}, "does not exist"),
        ({"resume": True}, "needs the folder of a checkpoint"),
        ({"checkpoint": tmp_path / "new", "objective": "paper"}, "keeps no checkpoints"),
    ):
        with pytest.raises(InputError, match=message):
            fit(model, "point", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


def test_a_folder_in_which_a_fit_works_is_nobody_elses(tmp_path: Path) -> None:
    """Of two that find the same fresh folder empty one goes on; the fit that made it says so at once, and leaves nothing when nothing came of it."""
    folder, arrays = tmp_path / "kept", {"x": np.zeros(1)}
    one, other = Checkpoint(folder, {"seed": 1}), Checkpoint(folder, {"seed": 1})
    with locked(tmp_path), one.held():  # the command line keeps the folder above to itself
        assert [path.name for path in folder.iterdir()] == ["about.json"]
        for late in (other, Checkpoint(folder, {"seed": 1}, resume=True)):
            with pytest.raises(InputError, match="another process is working there"), late.held():
                pytest.fail("two at a time")
    assert not any(folder.iterdir())
    with one.held():
        one.write("mode", 0, arrays)
    with pytest.raises(InputError, match="is not empty"), other.held():
        pytest.fail("into the files of another")
    with Checkpoint(folder, {"seed": 1}, resume=True).held():
        assert sorted(path.name for path in folder.iterdir()) == ["about.json", "mode-000000.npz"]
    assert len(list(folder.iterdir())) == 2


def test_a_fit_keeps_others_out_while_it_draws(model: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: Any, checkpoint: Checkpoint, **__: Any) -> None:
        with locked(checkpoint.folder):
            pytest.fail("two at a time")

    monkeypatch.setattr(
        sys.modules["bayes_mfg.inference.fit"], "draw", draw
    )  # the package has the function under the module's name
    with pytest.raises(InputError, match="another process is working there"):
        fit(model, "point", checkpoint=tmp_path / "kept")


def test_modes_are_kept_as_they_are(model: Calibration, tmp_path: Path) -> None:
    """A search that a checkpoint has done once is the same mode in every field."""
    from bayes_mfg.inference.fit import _mode

    checkpoint = Checkpoint(tmp_path / "c", {})
    made, _, _ = _mode(model, {"starts": 2, "checkpoint": checkpoint}, 0, False)
    kept, _, _ = _mode(model, {"starts": 2, "checkpoint": checkpoint}, 0, False)
    for field in dataclasses.fields(made):
        np.testing.assert_array_equal(getattr(kept, field.name), getattr(made, field.name), err_msg=field.name)
