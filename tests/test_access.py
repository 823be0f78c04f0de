"""The site can be read and used by everyone: axe-core finds nothing on any page, in light and dark,
and in a window of 320 pixels no control is cut off."""

import pytest
from browser import browser, needs_browser
from visits import WINDOWS, axe

ALLOWED = {  # rule -> why what it finds stays
    "landmark-unique": "Material's copy of the contents in the menu, and its buttons on code",
    "empty-table-header": "the corner above names of rows, in tables that recipes print",
}


def told(findings) -> list[str]:
    return [f"{rule} ({impact}): {why}\n    {what}" for impact, rule, why, what in findings]


@needs_browser
def test_axe_finds_nothing_on_any_page_in_light_and_dark(visited):
    wrong = [
        f"{v.page} ({v.scheme}): {line}"
        for v in visited
        for line in told(found for found in v.access if found[1] not in ALLOWED)
    ]
    assert {v.scheme for v in visited} == set(WINDOWS) and not wrong, "\n".join(wrong)


@needs_browser
def test_what_is_allowed_is_still_found_and_not_serious(visited):
    found = {(rule, impact) for v in visited for impact, rule, _, _ in v.access}
    assert {rule for rule, _ in found} == set(ALLOWED)
    assert not {impact for _, impact in found} & {"serious", "critical"}


@needs_browser
def test_in_a_window_of_320_pixels_no_control_is_cut_off(visited):
    assert min(WINDOWS.values()) == 320
    wrong = [f"{v.page} ({v.scheme}): {control}" for v in visited for control in v.cut]
    assert not wrong, "\n".join(wrong)


@needs_browser
@pytest.mark.parametrize("scheme", WINDOWS)
def test_axe_finds_nothing_on_the_planner_with_its_answers(site, address, scheme):
    with browser() as opened:
        size = {"width": WINDOWS[scheme], "height": 900}
        tab = opened.new_page(color_scheme=scheme, viewport=size)
        tab.goto(f"{address}planner/?a=zamba2-2.7b&b=llama-3.1-8b")
        tab.wait_for_selector(".planner[data-ready][data-advice]", timeout=120_000)
        tab.evaluate("document.querySelectorAll('details').forEach((f) => { f.open = true; })")
        assert not (wrong := told(f for f in axe(tab) if f[1] not in ALLOWED)), "\n".join(wrong)
        assert tab.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
