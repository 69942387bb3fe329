"""`bayes-mfg reproduce`: a benchmark of arXiv 2606.23155, fitted and scored on simulated data."""

import argparse
import dataclasses
import json

from .arguments import Add, progress
from .jax_settings import set_up_jax
from .places import ROWS, if_asked
from .printing import in_columns


def add(command: Add) -> None:
    """Declare the command."""
    parser = command("reproduce", run, "fit and score a benchmark of arXiv 2606.23155 on simulated data")
    parser.add_argument(
        "system", metavar="SYSTEM", help="lq, mfc, cybersecurity, sir, epidemic, emissions, bike_share, el_farol or meeting"
    )
    parser.add_argument(
        "--case",
        metavar="C",
        help="shape of the parameters, such as constant, arc, bell, population (default: the system's first)",
    )
    parser.add_argument(
        "--noise", type=float, metavar="E", help="eps of the noise Dirichlet(mu / eps), 0 for none (default: the paper's)"
    )
    parser.add_argument("--states", type=int, metavar="D", help="number of states, for lq")
    parser.add_argument("--seeds", type=int, default=1, metavar="K", help="number of data sets (default: 1)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="seed of the first data set (default: 0)")
    parser.add_argument("--method", default="svi", metavar="METHOD", help="point, paper, svi (default) or nuts")
    parser.add_argument(
        "--scheme", default="exponential", metavar="S", help="time scheme of the fit, exponential (default) or paper"
    )
    parser.add_argument(
        "--finer", type=int, default=1, metavar="N", help="simulate on a grid N times finer than the fit's (default: 1)"
    )
    parser.add_argument("--trajectories", type=int, metavar="R", help="training trajectories (default: the paper's number)")
    parser.add_argument("--draws", type=int, default=1000, metavar="N", help="draws of the posterior (default: 1000)")
    parser.add_argument("--comparators", action="store_true", help="fit forward dynamics and a neural ODE, too")
    parser.add_argument("--json", metavar="FILE", help="write all rows; written anew after each")
    parser.add_argument("--quiet", action="store_true", help="only the table")


def run(options: argparse.Namespace, words: str) -> None:
    """Fit and score every data set, and print the table."""
    target = if_asked(options.json, ROWS)
    set_up_jax()
    from bayes_mfg.inference.assemble import finite
    from bayes_mfg.inference.files import replacing
    from bayes_mfg.reproduce import reproduce, table

    names = ("case", "noise", "states", "seeds", "first", "method", "scheme", "finer", "trajectories", "draws", "comparators")
    rows = []
    for row in reproduce(options.system, progress=progress(options), **{name: getattr(options, name) for name in names}):
        rows.append(row)
        if not options.quiet:
            print(
                f"seed {row.seed}, {row.model}: mu error {row.mu_error:.2e}, gamma error {row.gamma_error:.3g}, {row.seconds:.0f} s",
                flush=True,
            )
        if target is not None:
            text = json.dumps(finite([dataclasses.asdict(row) for row in rows]), indent=1)
            with replacing(target) as part:
                part.write_text(text + "\n", encoding="utf-8", newline="\n")
    print(in_columns(table(rows), index=False))
    for row in rows:
        for name, values in row.estimates.items():
            print(f"seed {row.seed}, {name}: {', '.join(f'{x:.3g}' for x in values)}")
    if target is not None:
        print(f"rows: {target}")
