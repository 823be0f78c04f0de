"""A pipeline: sources in order of rank, and steps that read as a recipe.

    Pipeline(
        sources=(Source(name="wiki", paths=("wiki/",)), Source(name="web", paths=("web/",))),
        steps=(Filters(preset="zyda"), Exact(), MinHash(threshold=0.4)),
    )

The same in TOML: tables `[[sources]]` and `[[steps]]`, or `preset = "zyda"` instead of the steps.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cookbook_lib.data.steps import (
    STEPS,
    Filters,
    FilterStep,
    MinHash,
    Source,
    Step,
    Substring,
    steps_of,
)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What is read, what is done with it, and in which format it is written."""

    sources: tuple[Source, ...]
    steps: tuple[Step, ...]
    format: Literal["parquet", "jsonl"] = "parquet"
    tokenizer: str | None = None  # as for `cookbook tokens`: counts tokens in the report

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"sources are {names}, expected at least one, and names that differ")
        kinds = [isinstance(step, FilterStep) for step in self.steps]
        if kinds != sorted(kinds, reverse=True):
            raise ValueError("a filter comes after a step that drops duplicates: put it before")
        if any(isinstance(step, Substring) for step in self.steps[:-1]):
            raise ValueError("a step comes after the one that cuts substrings: put that last")
        for step in self.steps:  # what is wrong is found before anything is read
            if isinstance(step, FilterStep):
                step.filters()
            elif isinstance(step, MinHash):
                step.banding()

    @property
    def names(self) -> list[str]:
        """A name for each step, as the report calls it."""
        kinds = {cls: name for name, cls in STEPS.items()}
        return [
            f"{i}-{step.preset if isinstance(step, Filters) else kinds[type(step)]}"
            for i, step in enumerate(self.steps, 1)
        ]

    def plan(self) -> dict[str, Any]:
        """Everything that the result depends on, as JSON."""
        steps = [{"use": type(step).__name__.lower(), **asdict(step)} for step in self.steps]
        return {**asdict(self), "steps": steps}


def load(path: Path) -> Pipeline:
    """A pipeline from TOML; paths in it start at its folder. `ValueError` names what is wrong."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        sources = [made(Source, row, "a source") for row in table.pop("sources", [])]
        preset, rows = table.pop("preset", None), table.pop("steps", None)
        if (preset is None) == (rows is None):
            raise ValueError("expected either a preset or [[steps]]")
        steps = steps_of(preset) if rows is None else tuple(map(step_of, rows))
        if "tokenizer" in table and not table["tokenizer"].startswith("tiktoken:"):
            table["tokenizer"] = at(path, table["tokenizer"])
        here = [replace(s, paths=tuple(at(path, p) for p in s.paths)) for s in sources]
        return made(Pipeline, {"sources": here, "steps": list(steps), **table}, "a pipeline")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from None


def step_of(row: Mapping[str, Any]) -> Step:
    rest = dict(row)
    use = rest.pop("use", None)
    if use not in STEPS:
        raise ValueError(f"a step's use is {use!r}, expected one of {', '.join(STEPS)}")
    return made(STEPS[use], rest, use)


def made(cls: type, row: Mapping[str, Any], where: str) -> Any:
    """A dataclass from a table of TOML, whose keys and types must be the fields'."""
    known, hints = {f.name: f for f in fields(cls)}, get_type_hints(cls)
    for key, value in row.items():
        if key not in known:
            raise ValueError(f"{where} has {key!r}, expected one of {', '.join(known)}")
        if get_origin(hints[key]) is Literal and value not in (some := get_args(hints[key])):
            raise ValueError(f"{key} is {value!r}, expected one of {', '.join(some)}")
        default = known[key].default
        if type(default) in (bool, int, str) and type(value) is not type(default):
            raise ValueError(f"{where}: {key} is {value!r}, expected {type(default).__name__}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()})


def at(path: Path, name: str) -> str:
    """A path that a pipeline names, from where its file lies."""
    return name if "://" in name or name == "-" else str(path.parent / Path(name).expanduser())
