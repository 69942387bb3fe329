"""`bayes-mfg intervene`: what changes of the game would do, in every draw of a saved fit."""

import argparse

from bayes_mfg.errors import InputError

from .arguments import Add
from .jax_settings import set_up_jax
from .places import PAGE, config_beside, if_asked, saved_fit
from .printing import in_columns


def add(command: Add) -> None:
    """Declare the command."""
    parser = command("intervene", run, "say what changes of the game would do, in every draw of a saved fit")
    parser.add_argument("fit", metavar="RUN", help="folder of a run, or its fit.nc with the config.toml beside it")
    parser.add_argument(
        "--with", dest="changes", metavar="FILE.toml", help="tables [[intervention]], instead of those of the run's config"
    )
    parser.add_argument("--draws", type=int, metavar="N", help="draws to use, spread evenly (default: all)")
    parser.add_argument("--out", metavar="FILE.html", help="write a page with figures, too; an older page is replaced")


def run(options: argparse.Namespace, words: str) -> None:
    """Print what every scenario does, and write the page where one is asked for."""
    source = saved_fit(options.fit)
    told = config_beside(source)
    target = if_asked(options.out, PAGE)
    set_up_jax()
    from bayes_mfg.config.calibration import build_model, load_config, load_scenarios
    from bayes_mfg.inference import FitError, load
    from bayes_mfg.inference.intervene import make_plan
    from bayes_mfg.inference.intervention_page import write_page

    config = load_config(told)
    asked = load_scenarios(options.changes) if options.changes else config.interventions
    if not asked:
        raise InputError(f"{told} has no tables [[intervention]]; give a file that has some by --with.")
    model = build_model(config)
    fitted = load(source, model)
    # What does not fit the model is refused before hours go into the scenarios before it.
    for scenario in asked.values():
        make_plan(model, scenario.changes)
    results, failed = {}, []
    for name, scenario in asked.items():
        draws = scenario.number(fitted) if options.draws is None else options.draws
        try:
            found = fitted.intervene(*scenario.changes, num_draws=draws, flows=False)
        except FitError as error:
            failed.append(f"{name or 'the intervention without a name'} has no answer: {error}")
            continue
        results[name] = found
        table = found.table() if found.banded else found.table().drop(columns=["low", "high"])
        print("\n".join([*([name] if name else []), *found.sentences]))
        print(f"\n{in_columns(table)}\n", flush=True)
    if target is not None and results:
        print(f"page: {write_page(results, target)}", flush=True)
    if failed:
        raise FitError(" ".join(failed))
