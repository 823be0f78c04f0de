"""C4's rules (arXiv:1910.10683, section 2.2): lines are kept or not, then pages.

Figures are those of TensorFlow Datasets' c4_utils.py, which made C4. Sentences are counted by
their last marks rather than by NLTK's model. The list of bad words is the shipped one or yours.
"""

import re
from functools import partial
from pathlib import Path

from cookbook_lib.data.filters.base import Filter, FilterSet, Page
from cookbook_lib.data.filters.wordlists import hits, word_lists

WORDS_A_LINE = 5  # c4_utils.py, _MIN_WORDS_PER_LINE; datatrove 0.10 has 3
SENTENCES = 3  # c4_utils.py, _MIN_NUM_SENTENCES; datatrove 0.10 has 5
LONGEST_WORD = 1000  # c4_utils.py, _MAX_WORD_LENGTH
END_MARKS = (".", "?", "!", '"')  # c4_utils.py, _END_MARKS
POLICIES = (  # c4_utils.py, _POLICY_SUBSTRINGS
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")  # c4_utils.py, _CITATION_REGEX
SENTENCE_END = re.compile(r"[.?!](?=[\"'”’)\]]*(?:\s|$))")


def c4(words: Path | None = None, ended: bool = True) -> FilterSet:
    """The edit that keeps good lines, and the filters for whole pages.

    With `ended` false a line needs no mark at its end, as in FineWeb's use of these rules.
    """
    bad = word_lists(words)
    listed = (*bad["sexual"], *bad["profanity"])

    def sentences(page: Page) -> int:
        return sum(1 for _ in SENTENCE_END.finditer(page.text))

    return FilterSet(
        edit=partial(good_lines, ended=ended),
        filters=(
            Filter(name="lorem_ipsum", feature=lambda p: "lorem ipsum" in p.raw.lower(), most=0),
            Filter(name="braces", feature=lambda p: "{" in p.raw, most=0),  # section 2.2
            Filter(name="sentences", feature=sentences, least=SENTENCES),
            Filter(name="bad_words", feature=lambda p: hits(p.raw.lower(), listed), most=0),
        ),
    )


def good_lines(text: str, ended: bool = True) -> str:
    """The lines that end a sentence, have five words, and speak of neither scripts nor cookies."""
    kept = []
    for line in text.splitlines():
        line = CITATION.sub("", line.strip())
        split = line.split()
        lower = line.lower()
        if (
            (not ended or (line.endswith(END_MARKS) and not line.endswith("...")))
            and len(split) >= WORDS_A_LINE
            and max(map(len, split)) <= LONGEST_WORD
            and "javascript" not in lower
            and not any(policy in lower for policy in POLICIES)
        ):
            kept.append(line)
    return "\n".join(kept)
