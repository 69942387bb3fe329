"""Pages in a real browser, where there is one: they lay out without overflowing on a desk and a phone, in light and dark, and draw what they hold."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import xarray as xr
from report_tree import make_tree

from bayes_mfg.inference.movement_map import layout
from bayes_mfg.inference.movements import Flows
from bayes_mfg.inference.report import render

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
OFF = ("gpu", "quic", "background-networking", "component-update", "sync")
FLAGS = ["--headless", "--no-sandbox", "--no-first-run", "--virtual-time-budget=10000", *(f"--disable-{name}" for name in OFF)]
WIDTHS = (390, 1280)

# The page is put into frames, so that a script outside it, which its own policy refuses, can measure it.
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body>{frames}<pre id="found"></pre><script>
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map((frame) => {{
    const page = frame.contentDocument, root = page.documentElement;
    const empty = [...page.querySelectorAll("figure > svg")].filter((s) => s.getBoundingClientRect().height < 50).length;
    const out = [...page.querySelectorAll("figure, section > p, h1, h2, .tile")].filter((e) => {{
      const box = e.getBoundingClientRect();
      return box.width > 0 && (box.left < -1 || box.right > frame.clientWidth + 1);
    }}).map((e) => e.tagName + " " + e.textContent.slice(0, 40));
    const links = [...page.querySelectorAll("nav a")].filter((a) => !page.getElementById(a.hash.slice(1))).length;
    const circle = page.querySelector("circle.gains");
    return {{wide: root.scrollWidth - frame.clientWidth, tall: root.scrollHeight, empty, out, links,
      figures: page.querySelectorAll("figure").length, styled: getComputedStyle(page.querySelector("h1")).fontWeight,
      gains: circle && getComputedStyle(circle).fill}};
  }});
  document.getElementById("found").textContent = JSON.stringify(found);
}});
</script></body>"""


def flows_of(states: tuple[str, ...]) -> Flows:
    """Random flows between states, two of which have places."""
    rng = np.random.default_rng(0)
    moved = rng.uniform(0, 0.05, (20, 13, len(states), len(states))) * (1 - np.eye(len(states)))
    data = xr.Dataset(
        {
            "moved": (("draw", "interval", "origin", "destination"), moved),
            "mu": (("draw", "time", "state"), rng.dirichlet(np.ones(len(states)), (20, 14))),
        },
        coords={
            "interval": np.arange(13) + 0.5,
            "time": np.arange(14.0),
            **{name: list(states) for name in ("origin", "destination", "state")},
        },
    )
    return Flows(data, ("camp",), {"S": (-122.4, 37.8), "I": (-122.5, 37.7)})


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; tests/test_report.py checks the markup everywhere")
def test_the_page_fits_every_screen_and_shows_all_its_figures(tmp_path) -> None:
    page = render(make_tree(), [flows_of(("S", "I", "R"))])
    frames = "".join(f'<iframe width="{w}" height="800" srcdoc="{html.escape(page)}"></iframe>' for w in WIDTHS)
    (tmp_path / "harness.html").write_text(HARNESS.format(frames=frames), encoding="utf-8")
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "harness.html").as_uri()]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    match = re.search(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL)
    assert match and match[1], "the browser did not come to the end of the page"
    found = json.loads(html.unescape(match[1]))
    assert len(found) == len(WIDTHS)
    for width, seen in zip(WIDTHS, found, strict=True):
        assert seen["wide"] <= 0, f"at {width} pixels the page scrolls sideways by {seen['wide']}"
        assert seen["out"] == [] and seen["empty"] == 0 and seen["links"] == 0, (width, seen)
        assert seen["figures"] > 5 and seen["tall"] > 1000
        assert int(seen["styled"]) >= 600, "the page's own policy refused its style"
        assert seen["gains"] not in (None, "none", "rgb(0, 0, 0)"), "circles of the map have no colour"


def test_a_map_keeps_its_states_apart() -> None:
    at = layout(["S", "I", "R"], {"S": (-122.4, 37.8), "I": (-122.5, 37.7)})
    assert np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))[~np.eye(3, dtype=bool)].min() > 20
