"""A reader finds everything in two clicks, sees what each chapter takes and where it ran, has the
problems in one place, filters results as Python would, and finds code and formulas by searching."""

import json
import re
from collections import Counter
from itertools import product
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import browser, needs_browser
from playwright.sync_api import TimeoutError
from test_site import Page

from cookbook_lib.cli import main
from cookbook_lib.publishing import chapter_map, measured, references
from cookbook_lib.publishing.chapters import Chapter, chapters, question
from cookbook_lib.publishing.recipes import KEY, recipes
from cookbook_lib.results import FOLDER, read

ROOT = Path(__file__).parent.parent
BOOK = chapters(ROOT)
EVERY = [(c, p) for c in BOOK for p in c.problems]
ASSERTS = re.compile(r"^\s*(assert |raise AssertionError)", re.MULTILINE)


class Article(Page):
    """A page without its menus: what is between <article> and </article>."""

    def feed(self, text: str) -> None:
        super().feed(re.search(r"<article.*</article>|$", text, re.DOTALL)[0])


@pytest.fixture(scope="module")
def articles(site: Path) -> dict[Path, Article]:
    return {path: Article(path) for path in sorted(site.rglob("index.html"))}


# Chapters


def test_each_chapter_has_a_goal_a_device_and_builds_on_earlier_ones():
    for of in BOOK:
        assert of.goal and of.needs in ("CPU", "GPU") and of.minutes >= 1, of.name
        assert all(name < of.name for name in of.builds_on), of.name
        assert len(of.problems) >= 1, f"{of.name} has no problem"


def test_a_page_says_what_its_chapter_takes_and_where_it_ran(site):
    for recipe, of in zip(recipes(ROOT), BOOK, strict=True):
        folder = site / "recipes" / of.name
        text = re.sub(r"\s+", " ", (folder / "index.html").read_text())
        kept = json.loads(recipe.notebook.read_text())["metadata"][KEY]
        facts = re.search(r'<p class="nb-facts">(.*?)</p>', text)[1]
        assert f"{of.minutes} min to read" in facts and f"needs a {of.needs}" in facts
        assert re.search(r"runs in \d+ (s|min) on a [CG]PU", facts), of.name
        box = re.search(r'<dl class="nb-box".*?</dl>', text)[0]
        where = kept["where"]
        for said in (where["device"], where["versions"]["torch"], where["versions"]["python"]):
            assert said in box, (of.name, said)
        assert f'datetime="{where["date"]}"' in box
        if where["commit"]:
            assert where["commit"].removesuffix("-dirty") in box
            assert ("with changes" in box) == where["commit"].endswith("-dirty")
        assert (folder / f"{of.name}.py").read_text() == recipe.source.read_text()
        taken = json.loads((folder / f"{of.name}.ipynb").read_text())["cells"]
        assert [c["source"] for c in taken[1:]] == [
            c["source"] for c in json.loads(recipe.notebook.read_text())["cells"]
        ]


# The map


def made_up(*builds_on: tuple[str, ...]) -> list[Chapter]:
    names = "abcdef"
    return [
        Chapter(
            name=names[i], title=f"T{i}", goal="", needs="CPU", words=1, builds_on=on, problems=()
        )
        for i, on in enumerate(builds_on)
    ]


def test_the_map_draws_what_does_not_follow_from_the_rest():
    book = made_up((), ("a",), ("a", "b"), ("a",), ("c", "d", "a"))
    assert chapter_map.needed(book) == {
        "a": set(),
        "b": {"a"},
        "c": {"b"},
        "d": {"a"},
        "e": {"c", "d"},
    }


def test_the_map_has_each_chapter_once_in_the_list_and_once_in_the_drawing(site):
    text = (site / "map/index.html").read_text()
    drawn = re.search(r'<nav class="chapter-map".*?</nav>', text, re.DOTALL)[0]
    listed = Counter(re.findall(r'<strong><a href="\.\./recipes/(\w+)/', text))
    assert listed == {c.name: 1 for c in BOOK}
    assert Counter(re.findall(r'<a href="\.\./recipes/(\w+)/', drawn)) == listed
    arcs = sum(len(on) for on in chapter_map.needed(list(BOOK)).values())
    assert drawn.count("<path") == arcs > len(BOOK) / 2
    assert "fill=" not in drawn and "style=" not in drawn  # the page's colours
    for of in BOOK:
        assert of.number in drawn and of.goal.split()[0] in text


def test_every_page_is_two_clicks_from_the_first_one_without_the_menu(site, articles):
    start = site / "index.html"
    reached, edge = {start}, {start}
    for _ in range(2):
        found = set()
        for path in edge:
            for link in articles[path].links:
                parts = urlsplit(link)
                if not (parts.scheme or parts.netloc) and parts.path:
                    target = (path.parent / unquote(parts.path)).resolve()
                    found.add(target / "index.html" if target.is_dir() else target)
        edge = (found & set(articles)) - reached
        reached |= edge
    assert not set(articles) - reached, sorted(set(articles) - reached)


# Problems


def test_there_are_sixty_problems_whose_answers_assert_and_some_bugs():
    assert len(EVERY) >= 60
    without = [f"{c.name} {p.anchor}" for c, p in EVERY if not ASSERTS.search(p.code)]
    assert not without, without
    assert sum(p.bug for _, p in EVERY) >= 10
    twice = [n for n, k in Counter(p.question for _, p in EVERY).items() if k > 1]
    assert not twice, twice


def test_the_page_of_problems_leads_to_the_answers_of_all(articles, site):
    page = articles[site / "problems/index.html"]
    links = [link for link in page.links if "#problem-" in link]
    assert links == [f"../recipes/{c.name}/#{p.anchor}" for c, p in EVERY]
    for of in BOOK:
        text = (site / "recipes" / of.name / "index.html").read_text()
        assert re.findall(r'<details class="success" id="([\w-]+)">', text) == [
            p.anchor for p in of.problems
        ]


def test_a_question_is_the_text_behind_its_number_or_heading():
    assert question("## Exercises\n\n**1.** Why?\nAnd how?\n\nMore.") == "Why?\nAnd how?\n\nMore."
    assert question("Text.\n\n## Find the bug\n\nA *tool*.") == "A *tool*."
    assert question("**2.** One.\n\n**3.** Two.") == "Two."


# Results


def test_the_page_has_every_row_and_a_command_that_exists(capsys):
    files = {of["file"]: of for of in measured.data()["files"]}
    assert set(files) == {path.stem for path in FOLDER.glob("*.jsonl")}
    for name, of in files.items():
        assert [row[0] for row in of["rows"]] == list(range(1, len(read_file(name)) + 1))
        assert len({len(row) for row in of["rows"]}) == 1
        values = [row[-1] for row in of["rows"]]
        assert any(isinstance(value, int | float) for value in values), (name, "nothing to plot")
        if not of["command"]:
            continue
        words = of["command"].split()[1:]
        flags = [word for word in words if word.startswith("--")]
        with pytest.raises(SystemExit) as stopped:
            main([*[w for w in words[:2] if not w.startswith("--")], "--help"])
        said = capsys.readouterr().out
        assert stopped.value.code == 0 and all(flag in said for flag in flags), of["command"]


def read_file(name: str) -> list[dict]:
    return read(FOLDER / f"{name}.jsonl")


def test_a_file_that_nobody_described_is_shown_by_its_numbers(tmp_path):
    same = {"op": "x", "device": "d", "date": "2026-01-01", "list": [1, 2]}
    rows = [same | {"n": k, "seconds": {"median": k / 3}} for k in (1, 2)]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (of,) = measured.data(tmp_path)["files"]
    assert of["name"] == "op" and [c["label"] for c in of["columns"]] == ["n", "seconds.median"]
    assert of["rows"][1] == [2, "x", "d", "", "2026-01-01", 2, 0.6667]


def test_values_are_found_by_their_path():
    row = {"a": {"b": 3}, "tokens": 1, "context": 7, "curve": [1, 2, 9]}
    found = {
        "a.b": 3,
        "tokens+context": 8,
        "curve": 9,
        "a.c": None,
        "no.no": None,
        "tokens+no": None,
    }
    assert {path: measured.at(row, path) for path in found} == found


@needs_browser
def test_filters_show_the_rows_that_python_finds_and_the_address_keeps_them(address):
    with browser() as opened:
        tab = opened.new_page()
        wrong: list[str] = []
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.goto(address + "results/")
        for path in sorted(FOLDER.glob("*.jsonl")):
            rows = read(path)
            key = (measured.KINDS.get(path.stem) or measured.generic(rows)).name
            tab.select_option("#results-file", path.stem)
            devices, dtypes = ({str(r.get(k) or "") for r in rows} for k in ("device", "dtype"))
            for device, dtype in product(devices, dtypes):
                tab.select_option("#results-device", device)
                tab.select_option("#results-dtype", dtype)
                assert shown(tab) == lines(rows, device=device, dtype=dtype), path.stem
            first = str(rows[0][key])
            tab.select_option("#results-name", first)
            expected = lines(rows, device=device, dtype=dtype, **{key: first})
            assert shown(tab) == expected, (path.stem, first)
        asked = tab.url
        tab.goto("about:blank")
        tab.goto(asked)
        tab.wait_for_selector(".results-table tr")
        assert shown(tab) == expected and tab.input_value("#results-name") == first
        assert not wrong


def lines(rows: list[dict], **wanted: str) -> list[int]:
    return [
        number
        for number, row in enumerate(rows, 1)
        if all(not value or str(row.get(key) or "") == value for key, value in wanted.items())
    ]


def shown(tab) -> list[int]:
    found = tab.eval_on_selector_all(".results-table tbody tr", "r => r.map(x => x.dataset.line)")
    return sorted(map(int, found))


@needs_browser
def test_results_sort_and_filter_with_keys_alone(address):
    with browser() as opened:
        tab = opened.new_page()
        tab.goto(address + "results/?file=gemms")
        tab.wait_for_selector(".results-table tbody tr")
        tab.focus("#results-file")
        for _ in range(4):
            tab.keyboard.press("Tab")
        tab.keyboard.press("ArrowDown")  # the x axis: the next column
        focused = tab.evaluate("document.activeElement.id")
        assert focused == "results-x" and "x=m" in tab.url
        head = tab.locator("th button").filter(has_text=re.compile("^rate$"))
        head.press("Enter")
        assert tab.evaluate("document.activeElement.textContent") == "rate"
        head.press("Enter")
        top = int(tab.get_attribute(".results-table tbody tr", "data-line"))
        rows = read_file("gemms")
        rates = [float(f"{row['flops_per_second']:.4g}") for row in rows]
        assert rates[top - 1] == max(rates) and "sort=-rate" in tab.url
        assert tab.locator(".results-plot circle").count() == len(rows)
        assert tab.get_attribute(".results-plot svg", "aria-label").startswith("rate against m:")


# References


def test_references_are_well_formed_titled_and_not_there_twice():
    found = references.references(ROOT)
    papers = {r.address.rpartition("/")[2] for r in found if r.kind == "paper"}
    assert len(papers) > 50 and len(found) > 100
    for paper in papers:
        assert re.fullmatch(r"(0[7-9]|[12]\d)(0[1-9]|1[0-2])\.\d{4,5}", paper), paper
        assert len(paper) == (9 if paper < "1501" else 10), paper
    spellings: dict[str, set[str]] = {}
    for name, text in references.sources(ROOT):
        for address in references.addresses(text):
            parts = urlsplit(address)
            assert parts.scheme in ("http", "https") and "." in parts.netloc, (name, address)
            assert re.fullmatch(r"[!#-;=?-Z_a-z~%]+", address), (name, address)
            spellings.setdefault(references.key(address).lower(), set()).add(address)
    twice = [found for found in spellings.values() if len(found) > 1]
    assert not twice, twice
    assert set(references.titles()) <= papers, "a title that nothing uses"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("arXiv:2312.00752, section 3", ["https://arxiv.org/abs/2312.00752"]),
        ("[x](https://arxiv.org/pdf/2312.00752v2).", ["https://arxiv.org/abs/2312.00752"]),
        (
            "[a](https://a.org/b_(c)) and <https://c.org/d>.",
            ["https://a.org/b_(c)", "https://c.org/d"],
        ),
        ("see https://a.org/b.", ["https://a.org/b"]),
        ("http://www.w3.org/2000/svg https://github.com/hybrid-cookbook/cookbook", []),
    ],
)
def test_addresses_are_read_without_what_stands_around_them(text, found):
    assert list(references.addresses(text)) == found


def test_two_spellings_of_an_address_have_one_key():
    assert references.key("http://www.A.org/b/") == references.key("https://a.org/b.git")
    assert references.key("https://a.org/b#c") != references.key("https://a.org/b")


def test_each_reference_says_where_it_is_used(site, articles):
    text = articles[site / "references/index.html"].text
    for found in references.references(ROOT):
        assert f'href="{found.address}"' in text.replace("&amp;", "&"), found.address
        assert found.where and all((ROOT / name).exists() for name in found.where)


# Search


SEARCHES = {  # what a reader types -> a chapter that must be among the results
    "dt_bias": "320_ssm_costs",  # a parameter, in code and tables
    "busbw": "450_communication_micro",
    "selective_scan": "130_state_space_models",
    "attention_spec": "330_transformer_costs",
    "6ND": "355_how_wrong_is_6nd",  # a formula
    "zero-order hold": "130_state_space_models",
    "34sbh": "360_training_memory",  # a formula's letters
}


@needs_browser
def test_search_finds_code_and_formulas(address):
    missed = []
    with browser() as opened:
        tab = opened.new_page(viewport={"width": 1280, "height": 900})
        for words, chapter in SEARCHES.items():
            tab.goto(address)
            tab.click(".md-search__input")
            tab.fill(".md-search__input", words)
            link = f'.md-search-result__item a[href*="/recipes/{chapter}/"]'
            try:
                tab.wait_for_selector(link, state="attached")
            except TimeoutError:
                found = tab.eval_on_selector_all(
                    ".md-search-result__item a", "links => links.map(a => a.href)"
                )
                missed.append((words, chapter, found))
    assert not missed
