"""`bayes-mfg intervene`: what changes of the game would do, in every draw of a saved fit."""

import argparse
from pathlib import Path

from bayes_mfg.errors import InputError

from .arguments import Add
from .jax_settings import set_up_jax
from .places import PAGE, if_asked
from .printing import in_columns


def add(command: Add) -> None:
    """Declare the command."""
    parser = command("intervene", run, "say what changes of the game would do, in every draw of a saved fit")
    parser.add_argument("fit", metavar="RUN", help="folder of a run, with its config.toml and fit.nc")
    parser.add_argument(
        "--with", dest="changes", metavar="FILE.toml", help="tables [[intervention]], instead of those of the run's config"
    )
    parser.add_argument("--draws", type=int, metavar="N", help="draws to use, spread evenly (default: all)")
    parser.add_argument("--out", metavar="FILE.html", help="write a page with figures, too; an older page is replaced")


def run(options: argparse.Namespace, words: str) -> None:
    """Print what every scenario does, and write the page where one is asked for."""
    folder = Path(options.fit)
    for name in ("config.toml", "fit.nc"):
        if not (folder / name).is_file():
            raise InputError(f"{options.fit}: there is no {name}; the folder of a run is needed.")
    target = if_asked(options.out, PAGE)
    set_up_jax()
    from bayes_mfg.config.calibration import build_model, load_config, load_scenarios
    from bayes_mfg.inference import load
    from bayes_mfg.inference.intervention_page import write_page

    config = load_config(folder / "config.toml")
    asked = load_scenarios(options.changes) if options.changes else config.interventions
    if not asked:
        raise InputError(f"{folder / 'config.toml'} has no tables [[intervention]]; give a file that has some by --with.")
    fitted = load(folder / "fit.nc", build_model(config))
    results = {
        name: fitted.intervene(
            *scenario.changes, num_draws=scenario.number(fitted) if options.draws is None else options.draws, flows=False
        )
        for name, scenario in asked.items()
    }
    for name, found in results.items():
        print("\n".join([*([name] if name else []), *found.sentences]))
        print(f"\n{in_columns(found.table())}\n")
    if target is not None:
        print(f"page: {write_page(results, target)}")
