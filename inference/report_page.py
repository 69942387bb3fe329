"""HTML pieces of the report: escaping, numbers, tables, figures, sections and the document around them.

Every function that takes plain text escapes it; arguments whose names end in `html` are markup already.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np


def escape(text: object) -> str:
    """Text that is safe between tags and inside quoted attributes; control characters, which HTML forbids, become U+FFFD."""
    cleaned = "".join(c if (c >= " " and not "\x7f" <= c <= "\x9f") or c in "\n\t" else "\ufffd" for c in str(text))
    # Lone surrogates cannot be written as UTF-8.
    return html.escape(cleaned.encode("utf-8", "replace").decode("utf-8"), quote=True)


def shorten(text: str, most: int) -> str:
    """Text cut to at most `most` characters, with an ellipsis for what is left out."""
    return text if len(text) <= most else text[: most - 1] + "…"


def number(value: Any, digits: int = 3) -> str:
    """Number for people: `digits` significant digits, a dash for what is missing."""
    if value is None:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(int(value)).replace("-", "−")
    if not isinstance(value, float | np.floating):
        return str(value)
    x = float(value)
    if math.isnan(x):
        return "–"
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    if x == 0:
        return "0"
    if not 1e-3 <= abs(x) < 1e5:
        mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    return f"{x:.{max(0, digits - 1 - math.floor(math.log10(abs(x))))}f}".replace("-", "−")


def exact(value: Any) -> str:
    """Setting for people: up to six significant digits, no trailing zeros."""
    if isinstance(value, float | np.floating) and math.isfinite(value):
        return f"{float(value):.6g}".replace("e-0", "e-").replace("-", "−")
    return number(value)


def interval(low: float, high: float) -> str:
    """Interval for people."""
    return f"{number(low)} to {number(high)}" if math.isfinite(low) and math.isfinite(high) else "–"


def plural(count: int, noun: str) -> str:
    """Count with its noun, as in "1 draw" and "2 draws"."""
    ending = "" if count == 1 else "ies" if noun.endswith("y") else "s"
    return f"{count} {noun[:-1] if ending == 'ies' else noun}{ending}"


def listing(words: Iterable[str]) -> str:
    """Words joined by commas and a final "and"."""
    found = list(words)
    return found[0] if len(found) == 1 else ", ".join(found[:-1]) + " and " + found[-1] if found else ""


def paragraph(text: str, style: str = "") -> str:
    """Paragraph of plain text."""
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    label: str,
    text_columns: Iterable[int] = (0,),
    html_columns: Iterable[int] = (),
) -> str:
    """Table in a container that scrolls sideways by itself when the screen is narrow.

    Parameters
    ----------
    head : column titles.
    rows : cells as plain text.
    label : what the table is, for people who do not see it.
    text_columns : columns set flush left; the others hold numbers, flush right.
    html_columns : columns whose cells are markup already.
    """
    left, raw = set(text_columns), set(html_columns)

    def cell(i: int, text: str, tag: str) -> str:
        inner = text if i in raw and tag == "td" else escape(text)
        start = '<th scope="col"' if tag == "th" else '<th scope="row"' if i == 0 else "<td"
        return f"{start}{'' if i in left else ' class="n"'}>{inner}</{'th' if i == 0 else tag}>"

    body = "".join("<tr>" + "".join(cell(i, c, "td") for i, c in enumerate(row)) + "</tr>" for row in rows)
    titles = "".join(cell(i, c, "th") for i, c in enumerate(head))
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">'
        f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Mapping[str, Any], label: str) -> str:
    """Table of names and values; values that are dictionaries are opened up."""

    def flat(items: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, str]]:
        for key, value in items.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping):
                yield from flat(value, f"{name}: ")
            elif isinstance(value, list | tuple):
                yield name, ", ".join(exact(v) for v in value) or "–"
            else:
                yield name, exact(value)

    return table(("name", "value"), flat(pairs, ""), label=label, text_columns=(0, 1))


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Key of a group of charts: pairs of a style of `report.css` and its meaning."""
    keys = "".join(f'<li><span class="key {style}"></span>{escape(text)}</li>' for style, text in entries)
    return f'<ul class="legend">{keys}</ul>'


def figure(drawing_html: str, name: str, unit: str = "", detail: str = "") -> str:
    """Chart under its caption."""
    small = f' <span class="unit">{escape(unit)}</span>' if unit else ""
    more = f'<span class="detail">{escape(detail)}</span>' if detail else ""
    return f"<figure><figcaption><strong>{escape(name)}</strong>{small}{more}</figcaption>{drawing_html}</figure>"


def charts(figures_html: Iterable[str]) -> str:
    """Figures side by side, as many in a row as the screen has room for."""
    found = list(figures_html)
    return f'<div class="charts{" few" if len(found) <= 2 else ""}">{"".join(found)}</div>'


def fold(title: str, inner_html: str) -> str:
    """Part of a section that opens on demand."""
    return f"<details><summary>{escape(title)}</summary>{inner_html}</details>"


def tiles(entries: Iterable[tuple[str, str, str, str]]) -> str:
    """Row of key figures: label, value, remark, and one of the styles `good`, `bad` or nothing."""
    cells = "".join(
        f'<div class="tile {style}"><dt>{escape(label)}</dt><dd>{escape(value)}</dd>'
        f'<dd class="remark">{escape(remark)}</dd></div>'
        for label, value, remark, style in entries
    )
    return f'<dl class="tiles">{cells}</dl>' if cells else ""


def document(title: str, byline: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """Whole page.

    Parameters
    ----------
    title, byline : plain text at the top.
    sections : (identifier, heading, markup).
    """
    style = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading, _ in sections)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{escape(heading)}</h2>{inner}</section>\n'
        for name, heading, inner in sections
    )
    # The policy makes the browser itself refuse scripts and anything from elsewhere, should an escape ever be missed.
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="generator" content="bayes-mfg">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{escape(title)}</h1>{paragraph(byline, "byline")}</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>
{body}</main>
</body>
</html>
"""
