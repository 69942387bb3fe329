"""Kill -9 at random moments of a run: does every resumed run equal the undisturbed one, bit for bit?

    python -m benchmarks.resume [--kills 10] [--seed 0]

The run is the school outbreak of the demo with shorter chains. Moments are uniform over the seconds that the undisturbed run takes once everything is
compiled; a run that is over by then was not killed, and is counted apart. Prints a line per kill, and exits with 1 if any run differs.
"""

import argparse
import importlib.resources
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr

SHORTER = {"num_warmup": 150, "num_samples": 150}


def config() -> str:
    """The demo's config with shorter chains."""
    text = (importlib.resources.files("bayes_mfg.examples") / "school_outbreak.toml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.split("=")[0].strip() not in SHORTER]
    place = lines.index("[inference]") + 1
    return "\n".join([*lines[:place], *(f"{name} = {value}" for name, value in SHORTER.items()), *lines[place:]]) + "\n"


def equal(one: Path, other: Path) -> bool:
    """Whether two fits hold the same figures in every group, bit for bit."""
    a, b = (xr.open_datatree(path / "fit.nc", engine="h5netcdf").load() for path in (one, other))
    return set(a.children) == set(b.children) and all(
        a[group].to_dataset().identical(b[group].to_dataset()) for group in a.children
    )


def main() -> int:
    """Run the study."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "run.toml").write_text(config(), encoding="utf-8")
        command = [sys.executable, "-m", "bayes_mfg", "fit", "run.toml", "--quiet", "--out"]

        def fit(*more: str) -> float:
            begin = time.perf_counter()
            subprocess.run([*command, *more], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return time.perf_counter() - begin

        fit("compiled")
        seconds = fit("whole")
        print(f"undisturbed: {seconds:.1f} s; again equal: {equal(folder / 'compiled', folder / 'whole')}", flush=True)
        wrong = killed = 0
        for k in range(options.kills):
            name = f"run-{k}"
            running = subprocess.Popen([*command, name], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            moment = rng.uniform(0.0, seconds)
            time.sleep(moment)
            running.kill()
            early = running.wait() != 0
            killed += early
            whole = (folder / name).exists()
            kept = len(list((folder / f".{name}.part" / "checkpoint").glob("*.npz")))
            if not whole:
                # Before its folder was made there is nothing to go on with.
                fit(name, *(["--resume"] if (folder / f".{name}.part").exists() else []))
            good = equal(folder / "whole", folder / name)
            wrong += not good
            what = f"killed after {moment:.1f} s with {kept} files" if early else "was over"
            print(f"{name}: {what}{', complete' if whole else ''}; equal: {good}", flush=True)
    print(f"{killed} killed, {wrong} differ")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
