"""FineWeb's own filters (arXiv:2406.17557), meant for after Gopher's and C4's.

Thresholds are the defaults of datatrove 0.10, fineweb_quality_filter.py, which made the data.
"""

from cookbook_lib.data.filters.base import Filter, FilterSet, Page
from cookbook_lib.data.filters.gopher import repeated, words

END_MARKS = (
    ".",
    "?",
    "!",
    '"',
    "'",
    "”",
    "’",
    "…",
    "。",
    "？",
    "！",
)  # datatrove has more scripts'
SHORT_LINE = 30  # characters; short_line_length


def fineweb() -> FilterSet:
    """Lines that end, short lines, repeated lines, and lists."""
    return FilterSet(
        filters=(
            Filter(
                name="ended_lines",
                feature=lambda p: share(p, lambda line: line.endswith(END_MARKS)),
                least=0.12,  # line_punct_thr
            ),
            Filter(
                name="short_lines",
                feature=lambda p: share(p, lambda line: len(line) <= SHORT_LINE),
                most=0.67,  # short_line_thr
            ),
            Filter(
                name="repeated_line_characters",
                feature=lambda p: repeated(p.lines)[1] / max(1, len(p.text.replace("\n", ""))),
                most=0.01,  # char_duplicates_ratio
            ),
            Filter(
                name="line_ends_per_word",
                feature=lambda p: p.text.count("\n") / words(p),
                most=0.3,  # new_line_ratio
            ),
        )
    )


def share(page: Page, test) -> float:
    """The part of the lines that are not empty for which the test holds."""
    return sum(map(test, page.lines)) / max(1, len(page.lines))
