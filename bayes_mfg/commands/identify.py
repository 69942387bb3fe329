"""`bayes-mfg identify`: what the data of a config can tell about its unknowns, before any fit."""

import argparse

from .arguments import Add, add_config, glance
from .jax_settings import set_up_jax
from .places import PAGE, if_asked
from .printing import in_columns


def add(command: Add) -> None:
    """Declare the command."""
    parser = command("identify", run, "say what the data of a config can tell about its unknowns, before any fit")
    add_config(parser)
    parser.add_argument(
        "--prior-draws", type=int, metavar="N", help="ask at N draws of the prior, too: how often is each unknown identified?"
    )
    parser.add_argument("--out", metavar="FILE.html", help="write a page with figures, too; an older page is replaced")


def run(options: argparse.Namespace, words: str) -> None:
    """Print sentences and a table, and write the page where one is asked for."""
    target = if_asked(options.out, PAGE)
    glance(options.config)
    set_up_jax()
    from bayes_mfg.config.calibration import build_model, load_config
    from bayes_mfg.inference import FitError, identifiability, identifiability_over_prior

    config = load_config(options.config, data=options.data)
    model = build_model(config)
    found, over = None, None
    try:
        found = identifiability(model, seed=config.seed)
    except FitError as error:
        if options.prior_draws is None:
            raise
        print(error)
    else:
        print("\n".join(found.sentences))
        print(f"\n{in_columns(found.table())}")
    if options.prior_draws is not None:
        over = identifiability_over_prior(model, options.prior_draws, seed=config.seed)
        print("\n" + "\n".join(over.sentences))
        print(f"\n{in_columns(over.table())}")
    if target is not None and found is not None:
        print(f"page: {found.report(target, over)}")
    elif target is not None and over is not None:
        print(f"page: {over.report(target)}")
