"""What is printed of results: tables, the summary of a fit, and what else was found out about it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from bayes_mfg.inference import Fit


def in_columns(table: "pd.DataFrame", **options: Any) -> str:
    """A table as text, numbers with three digits; options are those of `DataFrame.to_string`."""
    return str(table.to_string(float_format=lambda x: f"{x:.3g}", **options))


_COLUMNS = {
    "estimate": "estimate",
    "mean": "mean",
    "sd": "sd",
    "median": "median",
    "eti90_lb": "5 %",
    "eti90_ub": "95 %",
    "ess_bulk": "ESS bulk",
    "ess_tail": "ESS tail",
    "r_hat": "R-hat",
}


def summary(result: "Fit") -> list[str]:
    """The summary table, and how many observations lie in their predictive band, as lines of text."""
    from bayes_mfg.inference.report_stats import convergence, coverage, group, lost_to_solves

    table = result.summary()
    table = table[[name for name in _COLUMNS if name in table]]
    if result.method in ("svi", "ensemble"):  # independent draws have neither
        table = table.drop(columns=["ess_bulk", "ess_tail", "r_hat"], errors="ignore")
    table = table.rename(columns=_COLUMNS)
    formats = {name: (lambda x: f"{x:.3f}") if name == "R-hat" else (lambda x: f"{x:.0f}") for name in table if name[0] in "ER"}
    lines = table.to_string(formatters=formats, float_format=lambda x: f"{x:.4g}").splitlines()
    for state, (inside, total) in (coverage(result.tree) or {}).items():
        lines.append(f"{state}: {inside} of {total} observations inside the 90 % predictive band")
    if result.method == "nuts":
        rows = convergence(group(result.tree, "posterior"))
        judged = [row for row in rows if row.checked]
        over = "parameters, populations and values" if any(row.name == "mu" for row in rows) else "parameters"
        ess = min(min(row.ess_bulk, row.ess_tail) for row in judged)
        stats = group(result.tree, "sample_stats")
        lines.append(
            f"over {over}: largest R-hat {max(row.r_hat for row in judged):.3f}, smallest ESS {ess:.0f}; "
            f"{int(stats['diverging'].sum())} divergences; {lost_to_solves(result.tree)}"
        )
    if result.method == "point":
        lines.append("A point estimate says nothing about uncertainty.")
    return lines


def print_findings(found: Sequence[Any], say: Callable[[str], object] = print) -> None:
    """What was found out about a fit: titles and sentences where there is something to say, and warnings in any case."""
    from bayes_mfg.inference.report_findings import told

    for one in found:
        title, said, warned = told(one)
        say("\n".join([f"{title}:", *said]))
        for sentence in warned:
            print(f"warning: {title}: {sentence}")
        say("")
