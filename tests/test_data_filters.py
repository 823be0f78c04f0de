"""Every filter drops what lies beyond its threshold and nothing at it, counts what its source
counts, and cannot be made slow by a hostile text."""

import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cookbook_lib.data.filters import characters
from cookbook_lib.data.filters.base import FilterSet, Page
from cookbook_lib.data.filters.c4 import c4, good_lines
from cookbook_lib.data.filters.fineweb import fineweb
from cookbook_lib.data.filters.gopher import gopher, quality, repeats, top
from cookbook_lib.data.filters.wordlists import word_lists
from cookbook_lib.data.filters.zyda import shortened, zyda

ZYDA, LISTS = zyda(), word_lists()


def prose(n: int) -> str:
    """n characters of five-letter words."""
    return ("abcde fghij klmno pqrst " * (n // 24 + 1))[:n]


def marked(n: int, mark: str, times: int) -> str:
    """n characters of prose in which the mark stands so many times, between spaces."""
    marks = f" {mark}" * times
    return prose(n - len(marks)) + marks


def sown(n: int, letter: str, times: int) -> str:
    """n characters of prose with so many of its letters replaced, and its words as long."""
    places = [i for i, c in enumerate(prose(n)) if c != " "][:times]
    return "".join(letter if i in set(places) else c for i, c in enumerate(prose(n)))


def reason(text: str, filters: FilterSet = ZYDA) -> str | None:
    verdict = filters.judge(filters.page(text))
    return verdict and verdict[0]


BOUNDARIES = {  # name -> a text at the threshold, a text one step beyond it
    "length": (prose(100), prose(99)),
    "short_words": ("abc " * 40 + "abc", "abc " * 40 + "ab"),
    "long_words": (
        " ".join(["abcdefghijkl"] * 40),
        " ".join(["abcdefghijkl"] * 39 + ["abcdefghijklm"]),
    ),
    "symbols": (sown(1000, "%", 300), sown(1000, "%", 301)),
    "digits": (sown(1000, "7", 200), sown(1000, "7", 201)),
    "repeated_characters": (marked(5000, "z" * 7, 50), marked(5000, "z" * 7, 51)),
    "xml": (marked(1000, "xml", 10), marked(1000, "xml", 11)),
    "xml_head": (marked(1000, "<?xml version=", 1), marked(1000, "<?xml version=", 2)),
    "lorem_ipsum": (marked(1000, "lorem ipsum", 2), marked(1000, "lorem ipsum", 3)),
    "https": (marked(1000, "https://", 2), marked(1000, "https://", 3)),
    "tags": (sown(1000, "<", 30), sown(1000, "<", 31)),
    "json": (marked(1000, '":', 2), marked(1000, '":', 3)),
    "www": (marked(1000, "www.", 10), marked(1000, "www.", 11)),
    "chinese_spam": tuple(marked(1000, LISTS["chinese_spam"][0], k) for k in (1, 2)),
    "sexual_words": tuple(marked(20_000, LISTS["sexual"][0], k) for k in (10, 11)),
    "sexual_share": tuple(marked(1000, LISTS["sexual"][0], k) for k in (1, 2)),
    "profanity": tuple(marked(2000, LISTS["profanity"][0], k) for k in (5, 6)),
    "cursed": tuple(marked(1000, LISTS["cursed"][0], k) for k in (10, 11)),
}


def test_zyda_has_eighteen_filters_in_the_published_order():
    assert [f.name for f in ZYDA.filters] == list(BOUNDARIES) and len(BOUNDARIES) == 18


@pytest.mark.parametrize("name", BOUNDARIES)
def test_zyda_keeps_what_is_at_a_threshold_and_drops_what_is_beyond(name):
    at, beyond = BOUNDARIES[name]
    assert (reason(at), reason(beyond)) == (None, name)


@given(st.text(st.sampled_from("ab1_ -/\\.,%<\n\té数७😀\ud800\xa0"), max_size=60))
def test_characters_are_counted_as_the_published_expressions_count_them(text):
    """Zyda_processing, preprocess_and_filter.py: mean word length and two fractions."""
    words = re.split(r"\s|-|/|\\|\.", text)
    mean = sum(map(len, words)) / len(words) if text else 0.0
    assert characters.mean_word_length(text) == pytest.approx(mean)
    for kind, pattern in {characters.SYMBOL: r"[^\w\s]", characters.DIGIT: r"\d"}.items():
        expected = len(re.findall(pattern, text)) / len(text) if text else 0.0
        assert characters.share(text, kind) == pytest.approx(expected)


def test_every_character_of_unicode_is_of_the_kind_that_an_expression_says():
    kinds = characters.kinds()
    one = {characters.SEPARATOR: r"\s|-|/|\\|\.", characters.SYMBOL: r"[^\w\s]"}
    for kind, pattern in {**one, characters.DIGIT: r"\d"}.items():
        expression = re.compile(pattern)
        found = [bool(expression.fullmatch(chr(i))) for i in range(0x110000)]
        assert found == (kinds & kind > 0).tolist()


@given(st.text(st.sampled_from("a-_/\\\n\r.,:?\xa0\t "), max_size=40), st.integers(1, 45))
def test_runs_are_shortened_as_published(text, times):
    text = "".join(c * times if i % 3 == 0 else c for i, c in enumerate(text))
    expected = text
    for c in "-_/\\\n\r.,:?\xa0\t ":
        at_least = {"\t": 20, " ": 40}.get(c, 10)
        expected = re.sub(re.escape(c) + f"{{{at_least},}}", lambda m: m[0][0], expected)
    assert shortened(text) == expected


@pytest.mark.parametrize("character, longest", [("-", 9), ("\xa0", 9), ("\t", 19), (" ", 39)])
def test_a_run_one_shorter_than_the_limit_stays(character, longest):
    assert shortened("a" + character * longest + "b") == "a" + character * longest + "b"
    assert shortened("a" + character * (longest + 1) + "b") == f"a{character}b"


def test_marks_are_text_and_not_expressions():
    """The published code looks for `www.` and `<?xml version=` as expressions."""
    for mark, lookalike in (("www.", "wwwx"), ("<?xml version=", "xml version=")):
        assert re.search(mark, lookalike)
        assert reason(marked(1000, lookalike, 10)) is None


def test_the_reason_says_value_and_bound():
    page = ZYDA.page("short")
    assert ZYDA.judge(page) == ("length", "length is 5, below 100")
    assert ZYDA.filters[0](page) == (False, "length is 5, below 100")
    assert ZYDA.filters[0](ZYDA.page(prose(100))) is True


def test_counts_are_of_the_document_as_read_and_length_is_after_the_edit():
    text = prose(200) + "https://" + "-" * 800  # 1,008 characters, 209 after the edit
    assert len(ZYDA.page(text).text) == 209
    loose = ZYDA.bounded({"most_symbols": 1, "least_short_words": 0})
    assert reason(text, loose) == "https"  # 1 / 209 is above 0.002, 1 / 1,008 is not


def test_bounds_can_be_changed_and_a_wrong_name_lists_the_right_ones():
    assert reason(prose(99), ZYDA.bounded({"least_length": 99})) is None
    with pytest.raises(ValueError, match="no bound is called 'most_length', expected one of least"):
        ZYDA.bounded({"most_length": 5})
    with pytest.raises(ValueError, match="least_length is 'x', expected a number"):
        ZYDA.bounded({"least_length": "x"})


def test_a_word_list_of_ones_own(tmp_path):
    for name in LISTS:
        (tmp_path / f"{name}.txt").write_text(
            "# mine\nzebra\n\nzebra\n" if name == "cursed" else ""
        )
    mine = zyda(tmp_path)
    assert reason(marked(1000, "zebra", 11), mine) == "cursed"
    assert reason(marked(1000, LISTS["cursed"][0], 11), mine) is None
    (tmp_path / "sexual.txt").unlink()
    with pytest.raises(ValueError, match=r"sexual\.txt: cannot be read"):
        zyda(tmp_path)


WORDS = st.lists(
    st.sampled_from(["a", "bb", "the", "and", "#x", "wait…", "go...", "12", "ocean\n", "•star\n"])
)


@pytest.fixture(scope="module")
def datatrove():
    """datatrove's filters, with words between white space as here."""
    filters = pytest.importorskip("datatrove.pipeline.filters", reason="needs the extra `test`")
    patch = pytest.MonkeyPatch()
    for name in ("gopher_quality", "gopher_repetition", "fineweb_quality"):
        module = sys.modules[f"datatrove.pipeline.filters.{name}_filter"]
        patch.setattr(module, "split_into_words", lambda text, language: text.split())
    yield filters
    patch.undo()


def theirs(one, text: str) -> bool:
    from datatrove.data import Document

    return one.filter(Document(text=text, id="")) is True


@settings(max_examples=200, deadline=None)
@given(WORDS, st.integers(1, 30))
def test_gopher_s_quality_agrees_with_datatrove(datatrove, words, times):
    text = " ".join(words * times)
    ours = FilterSet(filters=quality())
    if text.split():
        assert (reason(text, ours) is None) == theirs(datatrove.GopherQualityFilter(), text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["one", "two words", "a line of text"]), min_size=1), st.data())
def test_repeated_lines_and_paragraphs_agree_with_datatrove(datatrove, lines, data):
    ends = data.draw(st.lists(st.sampled_from(["\n", "\n\n", "\n\n\n"]), min_size=len(lines)))
    text = "".join(f"{a}{b}" for a, b in zip(lines, ends, strict=False)).strip()
    ours = FilterSet(filters=gopher().filters[:4])
    only = datatrove.GopherRepetitionFilter(top_n_grams=(), dup_n_grams=())
    assert (reason(text, ours) is None) == theirs(only, text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["It ends.", "no end", "a line that is longer than thirty"])))
def test_fineweb_agrees_with_datatrove(datatrove, lines):
    text = "\n".join(lines + [f"Line {i} is another one, and it ends." for i in range(9)])
    assert (reason(text, fineweb()) is None) == theirs(datatrove.FineWebQualityFilter(), text)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=40), st.integers(2, 10))
def test_n_grams_are_counted_by_their_definition(words, n):
    page = Page(" ".join(words), "")
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    times = Counter(grams)
    most = max(times.values(), default=0)
    longest = max((len(" ".join(g)) for g, k in times.items() if k == most), default=0)
    assert top(n)(page) == (most * longest if most > 1 else 0)
    inside = {k for i, g in enumerate(grams) if g in grams[:i] for k in range(i, i + n)}
    assert repeats(n)(page) == sum(len(words[k]) for k in inside)


def test_gopher_s_thresholds_are_those_of_table_a1(datatrove):
    bounds = {f.name: f.most for f in gopher().filters}
    published = datatrove.GopherRepetitionFilter()
    for n, most in published.top_n_grams:
        assert bounds[f"top_{n}_gram"] == most
    for n, most in published.dup_n_grams:
        assert bounds[f"repeated_{n}_grams"] == most
    assert bounds["lines"] == published.dup_line_frac
    assert bounds["line_characters"] == published.dup_line_char_frac
    assert bounds["paragraphs"] == published.dup_para_frac
    assert bounds["paragraph_characters"] == published.dup_para_char_frac


GOOD = "This line has enough words to stay."


def test_c4_keeps_lines_that_are_sentences():
    bad = (
        "No mark at its end, so it goes",
        "It trails off at its end...",
        "Only four words here.",
        "Please enable JavaScript to see this page.",
        "This site uses cookies to be nicer.",
        f"A word of {'x' * 1001} is no word.",
    )
    text = "\n".join([GOOD, *bad, "The moon[12] is far away[citation needed] from us."])
    assert good_lines(text) == f"{GOOD}\nThe moon is far away from us."


@pytest.mark.parametrize(
    "text, name",
    [
        ("\n".join([GOOD] * 3), None),
        ("\n".join([GOOD] * 2), "sentences"),
        ("\n".join([GOOD] * 3 + ["int main() {"]), "braces"),
        ("\n".join([GOOD] * 3 + ["Lorem ipsum"]), "lorem_ipsum"),
        ("\n".join([GOOD] * 3 + ["What the bloody hell is this about?"]), "bad_words"),
    ],
)
def test_c4_drops_pages(text, name):
    assert reason(text, c4()) == name


@settings(deadline=None)
@given(st.lists(st.sampled_from([GOOD, "Two words.", "It trails off...", "Is it[1] a good line?"])))
def test_c4_keeps_the_lines_that_datatrove_keeps(lines):
    filters = pytest.importorskip("datatrove.pipeline.filters", reason="needs the extra `test`")
    from datatrove.data import Document

    page = Document(text="\n".join(lines), id="")
    limits = {"min_num_sentences": -1, "min_words_per_line": 5}
    filters.C4QualityFilter(**limits).filter(page)
    assert good_lines("\n".join(lines)) == page.text


HOSTILE = """
from cookbook_lib.data.filters import c4, fineweb, gopher, zyda
n = 1_000_000
for piece in ("a", "aaaaaa ", "[", "[1", ".)", "\\n", " ", "-" * 9 + "x", "\\t \\t", "#", "•"):
    text = piece * (n // len(piece)) + "x"
    for preset in (zyda.zyda(), c4.c4(), gopher.gopher(), fineweb.fineweb()):
        for one in preset.filters:
            one(preset.page(text))
"""


def test_no_text_makes_a_filter_slow():
    """A million characters of what an expression likes least; a quadratic one takes hours."""
    subprocess.run([sys.executable, "-c", HOSTILE], check=True, timeout=300)
