"""What else was found out about a fit, on the pages of its report: sentences on each parameter, and results that were asked for one by one."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayes_mfg.errors import InputError

from .intervention_page import section, stored
from .report_page import charts, escape, figure, number, paragraph, table

TITLES = {
    "Contraction": "What the data say about each parameter",
    "Flows": "Who moves where",
    "Intervention": "What if",
    "Identifiability": "What the data can tell, by linearisation",
    "LinearWidths": "Linearised widths against the draws",
    "Profile": "Profile likelihood",
    "Uniqueness": "Is the equilibrium the only one?",
}
"""Titles of the sections of results, by their class."""

MOST_ROWS = 60
"""Rows of a table that are shown."""


def in_words(tree: xr.DataTree, also: Sequence[Any]) -> str:
    """One sentence on every unknown: those of a `contraction` that was passed, else of one made from the tree alone."""
    given = [found for found in also if type(found).__name__ == "Contraction"]
    said = list(given[-1].sentences) if given else _from_tree(tree)
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in said) + "</ul>" if said else ""


def _from_tree(tree: xr.DataTree) -> list[str]:
    """Sentences without power scaling, which needs the model; none where the tree has no draws of posterior and prior."""
    from .contraction import contraction
    from .result import Fit

    if "posterior" not in tree.children:
        return []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # draws that are not finite, which the page counts elsewhere
        try:
            found = contraction(Fit(tree))
            return [
                said for name, said in zip(found.verdicts, found.sentences, strict=True) if np.isfinite(found.ratio[name]).any()
            ]
        except InputError:
            return []


def told(found: Any) -> tuple[str, list[str], list[str]]:
    """The title of a result, its sentences, and, apart from these, its warnings.

    Raises
    ------
    InputError : for something that has no sentences.
    """
    said = getattr(found, "sentences", None) or ([found.sentence] if hasattr(found, "sentence") else None)
    if said is None or not hasattr(found, "table"):
        raise InputError(f"report: also holds {found!r}; results with sentences, such as that of uniqueness, are needed.")
    kind = type(found).__name__
    title = TITLES.get(kind, kind) + (
        f": {found.quantity}" if kind == "Profile" else f": {found.description}" if kind == "Intervention" else ""
    )
    warned = list(getattr(found, "warnings", ()))
    return title, [sentence for sentence in said if sentence not in warned], warned


def warned(also: Sequence[Any]) -> list[str]:
    """What a reader must know of the posterior itself, and not of one result only: where its equilibria may vanish, or are not the only ones."""
    return [sentence for found in also if type(found).__name__ == "Uniqueness" for sentence in found.warnings]


def sections(also: Sequence[Any]) -> list[tuple[str, str, str]]:
    """A section for every result: identifier, title and markup.

    Raises
    ------
    InputError : for something that has no sentences.
    """
    out = []
    for k, found in enumerate(also):
        title, said, heard = told(found)
        if type(found).__name__ == "Contraction":
            continue  # told with the parameters
        if type(found).__name__ == "Intervention":
            out.append((f"finding{k}", title, section(stored(found))))  # its sentences, figures and table as on its own page
            continue
        body = "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in [*said, *heard]) + "</ul>"
        body += _table(found.table(), title)
        if hasattr(found, "figures"):
            body += found.figures
        elif hasattr(found, "drawn"):
            body += charts([figure(found.drawn, title)])
        out.append((f"finding{k}", title, body))
    return out


def _table(frame: pd.DataFrame, label: str) -> str:
    head = [str(frame.index.name or ""), *map(str, frame.columns)]
    shown = frame.iloc[:MOST_ROWS]
    rows = [[str(name), *[number(x) for x in row]] for name, row in zip(shown.index, shown.to_numpy(), strict=True)]
    words = tuple(k + 1 for k, column in enumerate(frame.columns) if frame[column].dtype.kind not in "fiu")
    more = paragraph(f"The first {MOST_ROWS} of {len(frame)} rows.", "small") if len(frame) > MOST_ROWS else ""
    return table(head, rows, label=label, text_columns=(0, *words)) + more
