"""A collective: what each GPU of a group sends, and how long that takes over the links of its chip.

A message is the whole tensor that the ranks of a group share; in an all-to-all what one rank has.
By the ring each of n ranks then sends 2 (n - 1) / n of it to all-reduce and (n - 1) / n to
reduce-scatter, to gather or to exchange, in 2 (n - 1) and n - 1 steps. What a step takes beside its
bytes is a delay of the chip's links, which is 0 unless it was measured (`cookbook links`).
"""

from typing import NamedTuple

from cookbook_lib.calculators.chips import Chip

SENT = {  # part of the message that each of n ranks sends
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "send": lambda n: 1.0,
}
STEPS = {  # messages one after the other, each of an n-th; a send is one
    "all-reduce": lambda n: 2 * (n - 1),
    "reduce-scatter": lambda n: n - 1,
    "all-gather": lambda n: n - 1,
    "all-to-all": lambda n: n - 1,
    "send": lambda n: 1,
}


class Collective(NamedTuple):
    """`times` messages of `nbytes` in a step within groups of `ranks`, `stride` apart.

    Ranks are numbered as in Megatron: tp fastest, then cp, dp and pp. `each`: with every
    micro-batch.
    """

    why: str  # dp, tp, pp, ep or cp
    what: str
    kind: str
    nbytes: int
    times: int
    ranks: int
    stride: int
    each: bool = True

    @property
    def sent(self) -> float:
        """Bytes that each rank sends in all."""
        return SENT[self.kind](self.ranks) * self.nbytes * self.times

    def near(self, chip: Chip) -> int:
        """Ranks of a group that lie in one node."""
        return max(1, min(self.ranks, chip.node // self.stride))

    def seconds(self, chip: Chip) -> float:
        """At the links' peak, and their delays: of the node, or of the network if it spans several.

        A ring over several nodes has as many lanes as the group has ranks, and so cards, in a node.
        """
        near = self.near(chip)
        delay = chip.link_delay if near == self.ranks else chip.network_delay
        return self.times * STEPS[self.kind](self.ranks) * delay + self.moving(chip, near)

    def moving(self, chip: Chip, near: int) -> float:
        """Seconds of the bytes alone."""
        if near == self.ranks:
            return self.sent / rate(chip, "link")
        network = rate(chip, "network")
        if self.kind == "all-to-all":
            far = (self.ranks - near) / (self.ranks - 1)
            inside = self.sent * (1 - far) / rate(chip, "link") if near > 1 else 0.0
            return max(inside, self.sent * far / network)
        if self.kind == "send":
            return self.sent / network
        lanes = min(rate(chip, "link"), near * network) if near > 1 else network
        return self.sent / lanes


def rate(chip: Chip, tier: str) -> float:
    if (found := getattr(chip, tier)) is None:
        raise ValueError(
            f"{tier} is None, expected bytes/s: {chip.name} has none on record; give --{tier}, or "
            "take fewer gpus or another chip"
        )
    return found
