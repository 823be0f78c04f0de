"""The report of a run: what was there before and after each step, and why the rest went."""

from typing import Any

from cookbook_lib.data.pipeline import Pipeline
from cookbook_lib.data.tally import Tally


def reported(pipeline: Pipeline, tally: Tally) -> dict[str, Any]:
    """What was there before and after each step, and what each reason dropped, by source."""
    units = ("documents", "characters", *(["tokens"] if pipeline.tokenizer else []))
    stages = ["read", *pipeline.names]

    def at(stage: str) -> dict[str, dict[str, int]]:
        return {
            source.name: {unit: tally.through[stage, source.name, unit] for unit in units}
            for source in pipeline.sources
        }

    steps = []
    for before, name in zip(stages, stages[1:], strict=False):
        reasons: dict[str, Any] = {}
        for (step, reason, source, unit), n in tally.dropped.items():
            if step == name and unit in units:
                row = reasons.setdefault(reason, {}).setdefault(source, {})
                row[unit] = row.get(unit, 0) + n
        steps.append(
            {
                "step": name,
                "before": at(before),
                "after": at(name),
                "dropped": reasons,
                "seconds": tally.gauge.seconds[name],
                "peak_bytes": tally.gauge.peaks[name],
            }
        )
    return {
        "sources": at("read"),
        "steps": steps,
        "kept": at(stages[-1]),
        "samples": tally.samples,
        "damaged": tally.damage,
    }
