"""Plots can be read in light and dark and without colour vision; tables say what the rows say."""

import pytest

from cookbook_lib import plots

LIGHT, DARK = "#ffffff", "#1e2129"  # the site's two backgrounds


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("color", plots.COLORS)
def test_data_can_be_seen_on_both_backgrounds(color):
    """WCAG 2.2, 1.4.11: graphics need 3:1."""
    assert min(contrast(color, LIGHT), contrast(color, DARK)) >= 3


def test_numbers_in_a_table_are_grouped_and_stand_right():
    rows = [{"op": "<a>", "n": 1234567, "share": "12.5%"}, {"op": "b", "n": 2, "late": 0.125}]
    table = plots.table(rows)
    assert table.head == ["op", "n", "share", "late"] and table.right == [False, True, True, True]
    assert "&lt;a&gt;" in table._repr_html_() and "1,234,567" in table._repr_html_()
    assert repr(table).splitlines()[2].split() == ["b", "2", "0.125"]
    with pytest.raises(ValueError, match="rows is empty"):
        plots.table([])


def test_a_figure_without_a_text_is_refused():
    import matplotlib.pyplot as plt

    figure = plt.figure()
    with pytest.raises(ValueError, match="alt is empty"):
        plots.show(figure, " ")
    plt.close(figure)
