"""Zyda's eighteen filters in their order, and the edit before them.

Thresholds and order are those of github.com/Zyphra/Zyda_processing at 02e5ad9,
zyda/utils/filtering.py, described in arXiv:2406.01981, section 3. What that code looks for as a
regular expression is looked for as the text that it shows: its `www.` also matches `wwwx`.
"""

import re
from pathlib import Path

from cookbook_lib.data.filters.base import Filter, FilterSet, Page
from cookbook_lib.data.filters.characters import DIGIT, SYMBOL, mean_word_length, share
from cookbook_lib.data.filters.wordlists import hits, word_lists

# preprocess_and_filter.py, CHARS_FOR_TRANSFORM: runs so long become one character
LONGEST = dict.fromkeys("-_/\\\n\r.,:?\xa0", 10) | {"\t": 20, " ": 40}
REPEATED = re.compile(r"(\w)\1{6,}")  # preprocess_and_filter.py, count_substrings


def shortened(text: str) -> str:
    """Long runs of dashes, dots, spaces and the like as one character."""
    for character, length in LONGEST.items():
        run = character * length
        if run in text:
            text = re.sub(re.escape(run) + re.escape(character) + "*", lambda m: m[0][0], text)
    return text


def zyda(words: Path | None = None) -> FilterSet:
    """The filters, with the word lists of a folder or the shipped ones.

    Shares are hits in the document as it was read over characters after the edit, as published.
    """
    lists = word_lists(words)

    def found(*texts: str):
        return lambda page: hits(page.raw, texts)

    def per_character(*texts: str):
        return lambda page: hits(page.raw, texts) / max(1, len(page.text))

    def length(page: Page) -> int:
        return len(page.text)

    def word_length(page: Page) -> float:
        return mean_word_length(page.raw)

    return FilterSet(
        edit=shortened,
        filters=(
            Filter(name="length", feature=length, least=100),  # MIN_LENGTH
            Filter(name="short_words", feature=word_length, least=3),  # MIN_MEAN_WORD_LENGTH
            Filter(name="long_words", feature=word_length, most=12),  # MAX_MEAN_WORD_LENGTH
            Filter(
                name="symbols",
                feature=lambda page: share(page.raw, SYMBOL),
                most=0.3,  # MAX_FRACTION_NON_ALPHANUMERIC
            ),
            Filter(
                name="digits",
                feature=lambda page: share(page.raw, DIGIT),
                most=0.2,  # MAX_FRACTION_NUMERICAL
            ),
            Filter(
                name="repeated_characters",
                feature=lambda page: sum(1 for _ in REPEATED.finditer(page.text)),
                most=50,  # MAX_NUM_REPEATED_SUBSTRINGS
            ),
            # PATTERNS_WITH_MAX_COUNTS
            Filter(name="xml", feature=found("xml"), most=10),
            Filter(name="xml_head", feature=found("<?xml version="), most=1),
            Filter(name="lorem_ipsum", feature=found("lorem ipsum"), most=2),
            # PATTERNS_WITH_MAX_FRACTIONS
            Filter(name="https", feature=per_character("https://"), most=0.002),
            Filter(name="tags", feature=per_character("<"), most=0.03),
            Filter(name="json", feature=per_character('":'), most=0.002),
            Filter(name="www", feature=per_character("www."), most=0.01),
            # WORD_LISTS_WITH_MAX_COUNTS
            Filter(name="chinese_spam", feature=found(*lists["chinese_spam"]), most=1),
            Filter(name="sexual_words", feature=found(*lists["sexual"]), most=10),
            # WORD_LISTS_WITH_MAX_FRACTIONS
            Filter(name="sexual_share", feature=per_character(*lists["sexual"]), most=0.001),
            Filter(name="profanity", feature=per_character(*lists["profanity"]), most=0.0025),
            Filter(name="cursed", feature=per_character(*lists["cursed"]), most=0.01),
        ),
    )
