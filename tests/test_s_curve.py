"""The sliders of chapter 210 draw the curve that the library computes, and without the script the
figure stays as it was printed."""

import json
import re
from html import escape
from pathlib import Path

import numpy as np
import pytest
from browser import browser, needs_browser, served

from cookbook_lib.data.banding import collision
from cookbook_lib.publishing.outputs import for_page

ASSETS = Path(__file__).parent.parent / "docs/assets"
VALUES = {
    "threshold": 0.4,
    "measured": [{"name": "Zyda", "bands": 32, "rows": 4, "at": [0.25, 0.5], "share": [0.1, 0.9]}],
}


@pytest.fixture
def page(tmp_path) -> str:
    """A page with the figure as the notebook's template hands it on."""
    out = (
        '<figure class="nb-output nb-figure" data-alt="The curve" data-live="s-curve" '
        f'data-values="{escape(json.dumps(VALUES))}"><svg><text>as printed</text></svg></figure>'
    )
    html = for_page(out).replace("../../assets/", "")
    (tmp_path / "index.html").write_text(f"<!doctype html><html><body>{html}</body></html>")
    (tmp_path / "s-curve.js").write_text((ASSETS / "s-curve.js").read_text())
    with served(tmp_path) as address:
        yield address


def drawn(tab) -> np.ndarray:
    """The curve's points as (similarity, chance), from the axes that are drawn."""
    path = tab.locator("path").get_attribute("d")
    points = np.array([p.split() for p in re.split("[ML]", path)[1:]], float)
    zero, one = (
        np.array(tab.evaluate(f"[...document.querySelectorAll('line')].map(l => [{ends}])"))
        for ends in (
            "+l.getAttribute('x1'), +l.getAttribute('y1')",
            "+l.getAttribute('x2'), +l.getAttribute('y2')",
        )
    )
    corners = np.concatenate([zero, one])
    low, high = corners.min(0), corners.max(0)
    scaled = (points - low) / (high - low)
    return np.stack([scaled[:, 0], 1 - scaled[:, 1]], axis=1)


@needs_browser
def test_moving_a_slider_by_keyboard_draws_the_curve_of_the_library(page):
    with browser() as opened:
        tab = opened.new_page()
        errors: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(page)
        for keys, bands, rows in (
            ("", 32, 4),
            ("bands:PageUp", None, 4),
            ("rows:ArrowRight", None, 5),
        ):
            if keys:
                name, key = keys.split(":")
                tab.focus(f"input[name={name}]")
                tab.keyboard.press(key)
            chosen = [int(tab.input_value(f"input[name={name}]")) for name in ("bands", "rows")]
            assert chosen[1] == rows and (chosen[0] == bands if bands else chosen[0] > 32)
            found = drawn(tab)
            assert len(found) > 100
            np.testing.assert_allclose(found[:, 1], collision(found[:, 0], *chosen), atol=2e-4)
        said = tab.locator("output").text_content()
        at = collision(0.4, *chosen), collision(0.3, *chosen)
        assert all(f"{100 * chance:.1f}%" in said for chance in at)
        tab.click("text=Zyda: 32")
        assert [tab.input_value(f"input[name={name}]") for name in ("bands", "rows")] == ["32", "4"]
        assert "as printed" not in tab.content() and tab.locator("circle").count() == 2
        assert not errors
        tab.close()


@needs_browser
def test_without_scripts_the_figure_is_the_one_that_was_printed(page):
    with browser() as opened:
        tab = opened.new_context(java_script_enabled=False).new_page()
        tab.goto(page)
        assert tab.locator("text=as printed").count() == 1 and tab.locator("input").count() == 0
        assert tab.locator("figure").get_attribute("aria-label") == "The curve"
        tab.close()
