"""Formulas as MathML, made when the site is built: no script and no request when it is read.

The font is STIX Two Math (SIL Open Font License 1.1), cut down to the letters that the formulas of
the site use, so that it is there before the first formula is drawn.
"""

import hashlib
import re
from html import escape, unescape
from importlib.resources import files
from pathlib import Path

from fontTools import subset
from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
UNREAD = re.compile(r"<m[a-z]+>(\\[A-Za-z]+|&(?!#)|\\\\)")  # passed on: it was not understood
SAME = (  # what latex2mathml does not know or sets badly, and what it does well
    (re.compile(r"\\begin{(aligned|gathered)}"), r"\\begin{align*}{}"),  # {}: no [option] follows
    (re.compile(r"\\end{(aligned|gathered)}"), r"\\end{align*}"),
    (re.compile(r"\\mathrm{([A-Za-z]{2,})}"), r"\\text{\1}"),  # a word, not a product of letters
)
MATHML = re.compile(r"<math.*?</math>", re.DOTALL)
TAG = re.compile(r"<[^>]*>")
ITALICS = (  # first letter, last letter, first italic: a browser sets a single letter in italics
    ("A", "Z", 0x1D434),
    ("a", "z", 0x1D44E),
    ("\u0391", "\u03a9", 0x1D6E2),
    ("\u03b1", "\u03c9", 0x1D6FC),
)


def with_mathml(html: str) -> str:
    """A page whose `$…$` and `$$…$$` (marked by arithmatex) are MathML.

    Raises ValueError for a command that has no MathML, which would be shown as its source.
    """
    return FORMULA.sub(lambda match: formula(match[3], display=match[2] == "["), html)


def formula(escaped: str, display: bool) -> str:
    tex = unescape(escaped).strip()
    if len(re.findall(r"(?<!\\){", tex)) != len(re.findall(r"(?<!\\)}", tex)):
        raise ValueError(f"the formula {tex!r} has a brace without its partner")
    known = tex
    for pattern, better in SAME:
        known = pattern.sub(better, known)
    try:
        mathml = convert(known, display="block" if display else "inline")
    except Exception as error:  # latex2mathml has an exception for each mistake
        raise ValueError(f"the formula {tex!r} cannot be read: {error!r}") from error
    if unread := UNREAD.search(mathml):
        raise ValueError(f"the formula {tex!r} has a part that is not known: {unread[1]}")
    mathml = mathml.replace("<math ", f'<math alttext="{escape(tex)}" ', 1)
    return f'<div class="formula" tabindex="0">{mathml}</div>' if display else mathml


def letters(html: str) -> set[str]:
    """The characters that the formulas of a page show."""
    shown = set("".join(unescape(TAG.sub("", math)) for math in MATHML.findall(html)))
    if "<msqrt" in html or "<mroot" in html:
        shown.add("√")  # the element stands for it: without its letter no root is drawn
    for first, last, italic in ITALICS:
        shown |= {chr(italic + ord(c) - ord(first)) for c in shown if first <= c <= last}
    return shown | {"\u210e"} if "h" in shown else shown  # italic h was there before the others


def font(characters: set[str], kept: Path) -> Path:
    """The font with these characters, made once and kept in a folder."""
    wanted = "".join(sorted(characters))
    path = kept / f"formulas-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}.woff2"
    if not path.exists():
        kept.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        write_font(part, wanted)
        part.replace(path)
    return path


def write_font(path: Path, characters: str) -> None:
    """Write the part of STIX Two Math that these characters need, as WOFF2."""
    options = subset.Options(flavor="woff2", name_IDs=["*"], layout_features=["ssty", "dtls"])
    source = files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf"
    font = subset.load_font(str(source), options)
    cut = subset.Subsetter(options)
    cut.populate(text=characters)
    cut.subset(font)
    subset.save_font(font, str(path), options)
