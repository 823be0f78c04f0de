"""What is said about annealing, and what the runs of `cookbook train anneal` say about it.

The rule, the same for all: a claim that A is better than B holds if the 95% interval of the paired
difference of their losses is below 0, and fails if it is above. A claim that they are alike holds
if the interval lies within a tenth of what the decay itself gains, and fails if it lies outside;
that A is at least as good, if it lies below that tenth. Otherwise it cannot be seen at this scale,
with so many seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cookbook_lib.training.paired import Difference, every, paired

LITTLE = 0.1  # of what decaying the rate gains: less than this counts as no difference
Row = Mapping[str, Any]


class Part(NamedTuple):
    """One comparison of a claim."""

    what: str
    difference: Difference
    verdict: str


class Claim(NamedTuple):
    """What is said, by whom, and its parts; the verdict is that on all of them."""

    text: str
    source: str
    parts: list[Part]

    @property
    def verdict(self) -> str:
        return every([part.verdict for part in self.parts])


class Results:
    """Finished variants by name and seed; only seeds that have all of them count."""

    def __init__(self, rows: Sequence[Row]):
        ended = [row for row in rows if "average" in row]
        names = {row["variant"] for row in ended}
        found = {(row["variant"], row["seed"]): row for row in ended}
        seeds = sorted({row["seed"] for row in ended})
        self.seeds = [s for s in seeds if all((name, s) in found for name in names)]
        self.found = found

    def losses(self, variant: str, of: Callable[[Row], float] | str = "code") -> list[float]:
        """A loss of each seed: of a source, or what a function makes of a row."""
        read = (lambda row: row[of]) if isinstance(of, str) else of
        return [read(self.found[variant, seed]) for seed in self.seeds]

    def apart(self, a: str, b: str, of: Callable[[Row], float] | str = "code") -> Difference:
        return paired(self.losses(a, of), self.losses(b, of))

    def better(self, a: str, b: str, of: Callable[[Row], float] | str = "code") -> Part:
        found = self.apart(a, b, of)
        return Part(f"{a} − {b}", found, found.below())

    def alike(self, a: str, b: str) -> Part:
        found = self.apart(a, b)
        return Part(f"{a} − {b}", found, found.within(self.little))

    def best(self, *names: str) -> str:
        """The variant with the least mean loss: each schedule may have the peak that suits it."""
        return min(names, key=lambda name: sum(self.losses(name)))

    @property
    def gain(self) -> float:
        """Nats that a linear decay over 10% of the run gains over a constant rate, on average."""
        return -self.apart("decay 10%", "constant").mean

    @property
    def little(self) -> float:
        return LITTLE * self.gain

    def kept(self, name: str, source: str, of_all: str, nothing: str) -> Part:
        """Whether `name` has less than half of the change in a source between two extremes."""
        change = [
            (x - none) / (whole - none)
            for x, whole, none in zip(
                *(self.losses(v, source) for v in (name, of_all, nothing)), strict=True
            )
        ]
        found = paired(change, [0.5] * len(change))
        return Part(f"{name}, {source}: share − 1/2", found, found.below())


def mixed(row: Row) -> float:
    """The loss on 60% old and 40% new data, the mixture that is annealed on."""
    return 0.6 * row["code"] + 0.4 * row["prose"]


def averaged(row: Row) -> float:
    return row["average"]["code"]


def claims(rows: Sequence[Row]) -> list[Claim]:
    """All claims that are tested, with what was measured."""
    r = Results(rows)
    soup = paired(r.losses("decay 10%", averaged), r.losses("decay 10%"))
    flat = paired(r.losses("constant", averaged), r.losses("decay 10%"))
    shapes = ("shape cosine", "shape exponential", "shape 1-sqrt")
    return [
        Claim(
            "A decay to 0 at the end beats a constant rate",
            "arXiv:2404.06395, section 4",
            [r.better("decay 10%", "constant")],
        ),
        Claim(
            "A constant rate with a decay ends where a cosine ends",
            "arXiv:2404.06395, section 4; arXiv:2405.18392",
            [r.alike("decay 20%", r.best("cosine", "cosine 2x"))],
        ),
        Claim(
            "2.5% of the tokens are too few for the decay",
            "arXiv:2404.06395, section 4",
            [r.better("decay 10%", "decay 2.5%")],
        ),
        Claim(
            "10% are enough: 20% gain little more",
            "arXiv:2404.06395, section 4",
            [r.alike("decay 20%", "decay 10%")],
        ),
        Claim(
            "The shape of the decay matters little",
            "Zyphra/zcookbook at ec06304",
            [r.alike(shape, "decay 10%") for shape in shapes],
        ),
        Claim(
            "Re-warming to 75% of the peak beats going on from the end",
            "arXiv:2405.16712, section II-C, as reported; Zyphra/zcookbook",
            [r.better("re-warm", "go on", mixed)],
        ),
        Claim(
            "A replay of 60% gives up less than half of the new data's gain",
            "Zyphra/zcookbook: 50-70%; arXiv:2405.16712: 60%",
            [r.kept("replay 60%", "prose", "decay 10%", "replay 0%")],
        ),
        Claim(
            "A replay of 60% has less than half of the forgetting",
            "the same",
            [r.kept("replay 60%", "code", "replay 0%", "decay 10%")],
        ),
        Claim(
            "The average over the decay beats the last checkpoint",
            "arXiv:2407.21783, section 3.4.3",
            [Part("average − last, decay 10%", soup, soup.below())],
        ),
        Claim(
            "Averaging at a constant rate is at least as good as the decay",
            "arXiv:2405.18392, section 4, as an alternative",
            [Part("average, constant − decay 10%", flat, flat.below(r.little))],
        ),
    ]
