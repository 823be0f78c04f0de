"""What is said about hybrids, and what the runs of `cookbook train compare` say about it.

The rule, the same for all: a claim that A is better than B holds if the 95% interval of the paired
difference of their losses is below 0, and fails if it is above. A claim that A gains little over B
holds if the interval is above minus a hundredth of the hybrid's loss, and fails if it is below
that. Otherwise it cannot be seen at this scale, with so many seeds.
"""

from collections.abc import Collection, Sequence
from statistics import mean

from cookbook_lib.training.claims import Claim, Part
from cookbook_lib.training.comparisons import Row, mean_loss
from cookbook_lib.training.contenders import ARCHITECTURES
from cookbook_lib.training.paired import Difference, paired

LITTLE = 0.01  # of the hybrid's loss: a gain of less counts as little
STUDY = "arXiv:2406.07887, abstract"


class Compared:
    """Runs by model, what was equal, and seed; only seeds that have all of `needed` count."""

    def __init__(self, rows: Sequence[Row], needed: Collection[tuple[str, str]]):
        """needed: model, and what is equal."""
        mine = [row for row in rows if row["experiment"] != "rates"]
        self.found = {(row["model"], row["equal"], row["seed"]): row for row in mine}
        self.needed = needed
        seeds = sorted({seed for _, _, seed in self.found})
        self.seeds = [s for s in seeds if all((*run, s) in self.found for run in needed)]

    def has(self, model: str) -> bool:
        return (model, "tokens") in self.needed

    def rows(self, model: str, equal: str = "tokens") -> list[Row]:
        """Of each seed; the hybrid is the measure of both kinds of equality."""
        equal = "tokens" if model == "hybrid" else equal
        return [self.found[model, equal, seed] for seed in self.seeds]

    def losses(self, model: str, equal: str = "tokens", source: str = "") -> list[float]:
        """Of each seed: on one source, or the mean of both."""
        return [row[source] if source else mean_loss(row) for row in self.rows(model, equal)]

    def apart(self, a: str, b: str, equal: str = "tokens", source: str = "") -> Difference:
        return paired(self.losses(a, equal, source), self.losses(b, equal, source))

    def better(self, a: str, b: str, equal: str = "tokens") -> Part:
        found = self.apart(a, b, equal)
        return Part(f"{a} − {b}", found, found.below())

    def little(self, a: str, b: str) -> Part:
        """Whether b has less loss than a by a hundredth at most."""
        found = self.apart(a, b)
        return Part(f"{a} − {b}", found, found.below(self.margin))

    @property
    def margin(self) -> float:
        """Nats a token that count as little."""
        return LITTLE * mean(self.losses("hybrid"))


def architectures(rows: Sequence[Row]) -> Compared:
    """The hybrid, a transformer and Mamba-2, at equal tokens and at equal FLOPs."""
    names = [c.name for c in ARCHITECTURES]
    needed = {(name, equal) for name in names for equal in ("tokens", "FLOPs")}
    return Compared(rows, needed - {("hybrid", "FLOPs")})


def ablations(rows: Sequence[Row]) -> Compared:
    """The hybrid and those of its variants that the rows have runs of. Mamba-2 is one of them: it
    asks no attention."""
    there = {row["model"] for row in rows if row["experiment"] == "ablations"}
    return Compared(rows, {(name, "tokens") for name in ("hybrid", "Mamba-2", *there)})


def architecture_claims(c: Compared) -> list[Claim]:
    """The hybrid, a transformer and Mamba-2, at equal parameters."""
    claims = []
    for equal in ("tokens", "FLOPs"):
        for text, a, b in (
            ("a hybrid beats a transformer", "hybrid", "transformer"),
            ("a hybrid beats Mamba-2", "hybrid", "Mamba-2"),
            ("Mamba-2 beats a transformer", "Mamba-2", "transformer"),
        ):
            claims.append(Claim(f"At equal {equal} {text}", STUDY, [c.better(a, b, equal)]))
    return claims


def ablation_claims(c: Compared) -> list[Claim]:
    """The hybrid with one of its ideas changed, at equal tokens; of variants that have runs."""
    few, shares = "attention in 1 of 6", ("hybrid", "attention in 1 of 2", "attention in all")
    said = [
        (
            "Some attention beats none",
            STUDY,
            c.better,
            [(few, "Mamba-2"), ("hybrid", "Mamba-2")],
        ),
        (
            "A little is enough: more of it gains little",
            f"{STUDY}: 7% of the layers",
            c.little,
            [(few, more) for more in shares],
        ),
        (
            "One block used twice beats two of half the size",
            "arXiv:2405.16712, abstract",
            c.better,
            [("hybrid", "two half blocks")],
        ),
        (
            "Two whole blocks gain little over one used twice, at equal FLOPs",
            "the same",
            c.little,
            [("hybrid", "two blocks")],
        ),
        (
            "The embeddings beside the stream beat a wider MLP",
            "the choice of arXiv:2405.16712",
            c.better,
            [("hybrid", "no concatenation")],
        ),
        (
            "A LoRA for each use beats a wider MLP",
            "the choice of arXiv:2411.15242",
            c.better,
            [("hybrid", "no LoRA")],
        ),
    ]
    claims = []
    for text, source, part, pairs in said:
        if parts := [part(a, b) for a, b in pairs if c.has(a) and c.has(b)]:
            claims.append(Claim(text, source, parts))
    return claims
