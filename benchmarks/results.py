"""The tables of docs/results.md: which commands make them, running these, and writing the tables.

    python -m benchmarks.results --list
    python -m benchmarks.results --run lq-arc-1e-3      one command; its rows go to docs/results/
    python -m benchmarks.results --run missing          all whose rows are not there yet, one after the other
    python -m benchmarks.results                        write the tables from the rows that are there

A table stands in docs/results.md between two comments that bear its name; the sentences around it are written by hand.
"""

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pandas as pd

DOCS = Path(__file__).resolve().parents[1] / "docs"

SIZES = (8, 16, 32)
KINDS = ("constant", "arc", "bell", "population")
WORLDS = tuple(f"{n}-{world}" for n in (150, 1500, 3000) for world in ("plain", "avoid"))

GROUPS: dict[str, dict[str, str]] = {
    "arc": {f"lq-arc-{noise}": f"lq --case arc --noise {noise} --seeds 5 --draws 600" for noise in ("1e-4", "1e-3", "1e-2")},
    "exact": {
        "lq-constant": "lq --case constant --method point",
        "lq-population": "lq --case population --method point",
        "lq-arc": "lq --case arc --method point",
        "lq-bell": "lq --case bell --method point",
        "mfc": "mfc --method point",
        "sir-constant": "sir --case constant --method point",
        "sir-arc": "sir --case arc --method point",
    },
    "large": {f"lq-{kind}-{d}": f"lq --case {kind} --states {d} --method point" for d in SIZES for kind in KINDS},
    "cybersecurity": {
        "cybersecurity-constant": "cybersecurity --case constant --seeds 3",
        "cybersecurity-arc": "cybersecurity --case arc --draws 400",
        "cybersecurity-live": "cybersecurity --case live --seeds 3 --trajectories 50",
    },
    "epidemic": {f"epidemic-{world}": f"epidemic --case {world} --comparators" for world in WORLDS},
    "behaviour": {f"epidemic-{world}-known": f"epidemic --case {world}-known --seeds 3" for world in WORLDS},
    "emissions": {"emissions": "emissions --seeds 20 --method point"},
    "others": {
        "bike_share-congestion": "bike_share --case congestion --comparators",
        "bike_share-edge": "bike_share --case edge",
        "el_farol": "el_farol --seeds 3 --comparators",
        "meeting": "meeting --seeds 3",
    },
    "discretisation": {
        f"{system}-{noise}-{scheme}": f"{system} --case constant --noise {noise} --finer 40 --scheme {scheme} --trajectories 20 --seeds 5"
        for system in ("lq", "sir")
        for noise in ("1e-4", "1e-3")
        for scheme in ("paper", "exponential")
    },
}

COMMANDS = {name: words for group in GROUPS.values() for name, words in group.items()}

COLUMNS = {
    "model": "model",
    "seeds": "sets",
    "mu_error": "mu error",
    "noise_floor": "noise floor",
    "gamma_error": "gamma error",
    "crps": "CRPS",
    "coverage90": "cover",
    "width90": "width",
    "pareto_k": "worst k",
    "reweighted": "reweighted",
    "seconds": "s",
}


def run(name: str) -> bool:
    """Run one command and keep its rows, if it ends well."""
    target = DOCS / "results" / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    partial = target.with_name(f"{name}.part.json")
    command = [sys.executable, "-m", "bayes_mfg", "reproduce", *COMMANDS[name].split(), "--quiet", "--json", str(partial)]
    print("bayes-mfg reproduce", COMMANDS[name], flush=True)
    done = subprocess.run(command, check=False).returncode == 0
    if done:
        partial.replace(target)
    return done


def cell(column: str, value: object) -> str:
    """A figure as the tables show it."""
    if not isinstance(value, int | float):
        return str(value)
    if math.isnan(value):
        return "-"
    if column == "coverage90":
        return f"{100 * value:.0f} %"
    if column in ("mu_error", "noise_floor"):
        return f"{value:.2e}" if value else "0"
    if column in ("seeds", "seconds", "reweighted"):
        return f"{value:.0f}"
    return f"{value:.2g}"


def estimates(rows: list[dict]) -> str:
    """Medians with 90 % intervals, over data sets, and in how many of them the right equilibrium has over 90 % of the probability."""
    words = []
    for name in rows[0].get("estimates", {}):
        if name == "branch":
            right = sum(row["estimates"][name][0] > 0.9 for row in rows)  # where branches merge it is 0.5 and a rounding error
            words.append(
                f"right branch in {right} of {len(rows)}, probability at least {min(row['estimates'][name][0] for row in rows):.2g}"
            )
        else:
            low, middle, high = zip(*(row["estimates"][name] for row in rows), strict=True)
            words.append(f"{name} {statistics.median(middle):.3g} ({min(low):.3g} to {max(high):.3g})")
    return "; ".join(words)


def table_of(group: str) -> str:
    """One group as a Markdown table: medians over data sets, the mean of the coverage, and the command of every row."""
    from bayes_mfg.reproduce import Row, table

    lines = [
        "| " + " | ".join([*COLUMNS.values(), "worst gamma error", "warned", "estimates", "`bayes-mfg reproduce`"]) + " |",
        "| --- " * (len(COLUMNS) + 4) + "|",
    ]
    for name, words in GROUPS[group].items():
        source = DOCS / "results" / f"{name}.json"
        if not source.is_file():
            continue
        rows = json.loads(source.read_text(encoding="utf-8"))
        every = [Row(**{key: math.nan if value is None else value for key, value in row.items()}) for row in rows]
        worst = pd.DataFrame(every).groupby("model", sort=False)["gamma_error"].agg(lambda x: x.max(skipna=False))
        for line in table(every).to_dict("records"):
            cells = [cell(column, line[column]) for column in COLUMNS]
            told = estimates([row for row in rows if row["model"] == line["model"]]) or "-"
            largest = cell("gamma_error", float(worst[line["model"]]))
            warned = str(sum(bool(row.get("warnings")) for row in rows if row["model"] == line["model"]))
            lines.append("| " + " | ".join([*cells, largest, warned, told, f"`{words}`"]) + " |")
    return "\n".join(lines)


def write() -> None:
    """Put the tables into docs/results.md."""
    page = DOCS / "results.md"
    text = page.read_text(encoding="utf-8")
    for group in GROUPS:
        pattern = re.compile(f"(<!-- begin {group} -->\n).*?(<!-- end {group} -->)", re.DOTALL)
        made = table_of(group)
        text, count = pattern.subn(lambda found, made=made: f"{found[1]}{made}\n{found[2]}", text)
        if count != 1:
            raise ValueError(f"{page} must have the comments of the table {group!r} once.")
    page.write_text(text, encoding="utf-8")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print all names with their commands")
    parser.add_argument("--run", choices=["missing", *COMMANDS], metavar="NAME", help="run a command, or all that are missing")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name}: bayes-mfg reproduce {words}" for name, words in COMMANDS.items()))
    elif options.run is None:
        write()
    else:
        missing = [name for name in COMMANDS if not (DOCS / "results" / f"{name}.json").is_file()]
        failed = [name for name in (missing if options.run == "missing" else [options.run]) if not run(name)]
        write()
        if failed:
            print("failed:", ", ".join(failed), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
