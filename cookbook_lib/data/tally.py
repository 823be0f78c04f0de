"""What a run counts: documents on their way, by source, step and reason."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cookbook_lib.data.gauge import Gauge

SAMPLES = 3  # documents shown for each reason


@dataclass
class Entry:
    """A document on its way through the filters."""

    id: str
    text: str
    record: dict[str, Any]
    tokens: int = 0


@dataclass
class Tally:
    """What the report says of a piece, or of all."""

    through: Counter = field(default_factory=Counter)  # (stage, source, unit) -> how many
    dropped: Counter = field(default_factory=Counter)  # (step, reason, source, unit)
    gauge: Gauge = field(default_factory=Gauge)
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    damage: list[dict[str, Any]] = field(default_factory=list)

    def pass_on(self, stage: str, source: str, entries: list[Entry]) -> None:
        for unit, value in measures(entries).items():
            self.through[stage, source, unit] += value

    def drop(self, step: str, reason: str, why: str, source: str, entry: Entry) -> None:
        for unit, value in measures([entry]).items():
            self.dropped[step, reason, source, unit] += value
        shown = self.samples.setdefault(f"{step}/{reason}", [])
        if len(shown) < SAMPLES:
            shown.append({"id": entry.id, "why": why, "text": entry.text[:200]})

    def cut(self, step: str, source: str, characters: int, tokens: int) -> None:
        """Passages that a document lost, though it stays."""
        for unit, value in {"documents": 0, "characters": characters, "tokens": tokens}.items():
            self.dropped[step, "passage", source, unit] += value

    def to_json(self) -> dict[str, Any]:
        """The same as lists, since JSON's keys are texts."""
        return {
            "through": [[*key, n] for key, n in self.through.items()],
            "dropped": [[*key, n] for key, n in self.dropped.items()],
            "gauge": self.gauge.to_json(),
            "samples": self.samples,
            "damage": self.damage,
        }

    def add(self, found: dict[str, Any]) -> None:
        """Join what `to_json` gave for another piece."""
        for *key, n in found["through"]:
            self.through[tuple(key)] += n
        for *key, n in found["dropped"]:
            self.dropped[tuple(key)] += n
        self.gauge.add(found["gauge"])
        self.damage += found["damage"]
        for reason, shown in found["samples"].items():
            known = self.samples.setdefault(reason, [])
            known += shown[: SAMPLES - len(known)]


def measures(entries: list[Entry]) -> dict[str, int]:
    return {
        "documents": len(entries),
        "characters": sum(len(e.text) for e in entries),
        "tokens": sum(e.tokens for e in entries),
    }
