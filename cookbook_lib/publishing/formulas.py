"""Formulas as MathML, made when the site is built: no script and no request when it is read.

The font is STIX Two Math (SIL Open Font License 1.1), cut down to what formulas use.
"""

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
GLYPHS = [  # Unicode ranges
    *range(0x20, 0x100),  # Latin
    *range(0x391, 0x3F6),  # Greek
    *range(0x2010, 0x2060),  # punctuation
    *range(0x2100, 0x2150),  # letterlike: R, N, l
    *range(0x2190, 0x21D6),  # arrows
    *range(0x2200, 0x2300),  # operators
    *range(0x2308, 0x230C),  # floor and ceiling
    *range(0x1D400, 0x1D468),  # bold and italic letters
    *range(0x1D49C, 0x1D4D0),  # script
    *range(0x1D6E2, 0x1D71C),  # italic Greek
]


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


def write_font(path: Path) -> None:
    """Write the part of STIX Two Math that formulas use, as WOFF2."""
    options = subset.Options(flavor="woff2", name_IDs=["*"], layout_features=["ssty", "dtls"])
    source = files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf"
    font = subset.load_font(str(source), options)
    cut = subset.Subsetter(options)
    cut.populate(unicodes=GLYPHS)
    cut.subset(font)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    subset.save_font(font, str(part), options)
    part.replace(path)
