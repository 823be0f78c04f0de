"""Prose, formulas and outputs of a recipe reach its page as they were meant."""

import html

import pytest

from cookbook_lib.plots import INK, PAPER
from cookbook_lib.publishing import formulas, gallery, outputs, prose
from cookbook_lib.publishing.nav import filled


def test_lists_and_formulas_get_the_blank_lines_that_jupyter_does_not_need():
    text = "Note:\n- one\n- two\n\nand\n$$\na\n$$\nend\n1. x\n   more\n2. y"
    spaced = "Note:\n\n- one\n- two\n\nand\n\n$$\na\n$$\n\nend\n\n1. x\n   more\n2. y"
    assert prose.spaced(text) == spaced


def test_a_formula_on_one_line_gets_lines_of_its_own():
    assert prose.spaced("so\n$$a = b$$\nend") == "so\n\n$$a = b$$\n\nend"


@pytest.mark.parametrize("fence", ["```", "~~~~~~"])
def test_code_stays_as_it_is(fence):
    code = f"{fence} python\nx = 1\n- 2\n$$\n{fence}"
    assert prose.spaced(code) == code


def test_links_to_files_become_links_to_pages():
    assert prose.linked("[a](320_ssm.py#look) [b](../recipes/320_ssm.py)") == (
        "[a](320_ssm.md#look) [b](320_ssm.md)"
    )
    assert prose.linked("[c](../docs/conventions.md)") == "[c](../conventions.md)"
    same = "[d](https://example.org/x.py) `310_x.py`"
    assert prose.linked(same) == same


def converted(notebook: str) -> str:
    """What nbconvert's HTML parser leaves of a page from our template."""
    escaped = html.escape(notebook, quote=False)
    return f"<div><x-notebook>{escaped}</x-notebook></div><style></style>"


def test_outputs_come_back_where_they_were_and_code_is_not_read_as_html():
    page = "a < b &amp; <T>\n<x-output><pre>1</pre></x-output>\n<x-output><pre>2</pre></x-output>"
    markdown, kept = outputs.take_out(converted(page))
    assert markdown.startswith("a < b &amp; <T>\n") and kept == ["<pre>1</pre>", "<pre>2</pre>"]
    assert outputs.put_back(markdown, kept).endswith("<pre>1</pre>\n<pre>2</pre>")
    with pytest.raises(ValueError, match="output 1 has no place on the page"):
        outputs.put_back(html.escape(markdown), kept)


def test_a_figure_takes_the_colours_of_the_page_and_has_a_text():
    svg = (
        f'<?xml version="1.0"?><svg width="400pt" height="300pt"><metadata>x</metadata>'
        f'<path style="stroke: {INK}; fill: {PAPER}"/><!-- context (tokens) --></svg>'
    )
    shown = outputs.figure(svg, "")
    assert 'stroke="currentColor" fill="var(--md-default-bg-color)"' in shown
    assert 'aria-label="Figure: context (tokens)"' in shown and "metadata" not in shown
    assert 'aria-label="a &lt; b"' in outputs.figure(svg, "a < b")


@pytest.mark.parametrize("display", [False, True])
def test_a_formula_becomes_mathml(display):
    left, right = ("[", "]") if display else ("(", ")")
    tag = "div" if display else "span"
    page = f'<p>so <{tag} class="arithmatex">\\{left}\\frac{{a}}{{b}} &lt; c\\{right}</{tag}></p>'
    shown = formulas.with_mathml(page)
    assert "<mfrac>" in shown and "arithmatex" not in shown
    assert ('display="block"' in shown) == display


def test_aligned_lines_and_words_are_set_as_such():
    shown = formulas.formula(r"\begin{aligned} [a] &= b \\ [c] &= \mathrm{out} \end{aligned}", True)
    assert shown.count("<mtr>") == 2 and "<mtext>out</mtext>" in shown


@pytest.mark.parametrize("tex", [r"\sqrt{N}", r"\sqrt[3]{N}"])
def test_the_font_has_the_sign_of_a_root(tex):
    assert "\u221a" in formulas.letters(formulas.formula(tex, display=False))
    assert "\u221a" not in formulas.letters(formulas.formula("N", display=False))


@pytest.mark.parametrize("tex", [r"\nonsense{x}", r"\frac{a", r"\begin{odd}a & b\end{odd}"])
def test_a_formula_that_cannot_be_shown_stops_the_build(tex):
    with pytest.raises(ValueError, match="the formula"):
        formulas.formula(tex, display=False)


def test_the_menu_takes_recipes_by_their_numbers_and_leaves_none_out():
    a, b, c, d = pages = [f"recipes/{name}.md" for name in ("310_a", "320_b", "410_c", "710_d")]
    nav = [{"Costs": "recipes/3*"}, {"None yet": "recipes/9*"}]
    nav += [{"More": ["index.md", "recipes/4*"]}, {"Models": "models/*"}]
    assert filled(nav, pages) == [
        {"Costs": [a, b]},
        {"More": ["index.md", c]},
        {"Models": gallery.menu()},
        {"More recipes": [d]},
    ]
    assert filled(nav, pages[:3])[-1] == {"Models": gallery.menu()}
