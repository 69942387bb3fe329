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
    parser.add_argument("--out", metavar="FILE.html", help="write a page with figures, too; an older page is replaced")


def run(options: argparse.Namespace, words: str) -> None:
    """Print sentences and a table, and write the page where one is asked for."""
    target = if_asked(options.out, PAGE)
    glance(options.config)
    set_up_jax()
    from bayes_mfg.config.calibration import build_model, load_config
    from bayes_mfg.inference import identifiability

    config = load_config(options.config, data=options.data)
    found = identifiability(build_model(config), seed=config.seed)
    print("\n".join(found.sentences))
    print(f"\n{in_columns(found.table())}")
    if target is not None:
        print(f"page: {found.report(target)}")
