"""Plans of published runs, one TOML file each, with the source of every number on its line."""

import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from cookbook_lib.training.phases import Phase, Plan

FOLDER = Path(__file__).parent


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def resolve(plan: str) -> Plan:
    """The plan of this name, or of a TOML file. `ValueError` says in a line what is wrong."""
    path = FOLDER / f"{plan}.toml" if plan in names() else Path(plan)
    if path.suffix != ".toml" or not path.is_file():
        raise ValueError(f"plan is {plan!r}, expected a TOML file or one of {', '.join(names())}")
    try:
        return from_dict(tomllib.loads(path.read_text(encoding="utf-8")), path.stem)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None


def from_dict(content: dict[str, Any], name: str) -> Plan:
    """A plan from plain tables: the fields of `Plan`, and of `Phase` under `phases`."""
    phases = content.get("phases", [])
    if not isinstance(phases, list) or not all(isinstance(p, dict) for p in phases):
        raise ValueError(f"phases of {name} is no list of tables: each begins with [[phases]]")
    made = []
    for i, phase in enumerate(phases, 1):
        where = f"phase {i} of {name}"
        made.append(Phase(**{"name": where} | checked(Phase, phase, where)))
    given = {"name": name} | {k: v for k, v in content.items() if k != "phases"}
    return Plan(**checked(Plan, given, name), phases=tuple(made))


def checked(kind: type, given: dict[str, Any], where: str) -> dict[str, Any]:
    """The values given, if their names and types are those of the fields."""
    known = {f.name: f for f in fields(kind)}
    if unknown := [k for k in given if k not in known]:
        raise ValueError(f"{where} has {unknown[0]!r}, expected one of {', '.join(known)}")
    needed = (f.name for f in known.values() if f.default is f.default_factory is MISSING)
    if missing := [k for k in needed if k not in given and k not in ("name", "phases")]:
        raise ValueError(f"{where} has no {missing[0]}, which every phase needs")
    for name, value in given.items():
        wanted = EXPECTED.get(name, (int, float))
        tables = isinstance(value, dict) and all(number(v) for v in value.values())
        fits = tables if wanted is dict else isinstance(value, wanted)
        if not fits or (isinstance(value, bool) and wanted is not bool):
            said = {str: "a text", bool: "true or false", dict: "a table of numbers"}
            raise ValueError(
                f"{name} of {where} is {value!r}, expected {said.get(wanted, 'a number')}"
            )
    return given


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


EXPECTED = dict.fromkeys(("name", "decay", "source", "note", "unit"), str) | {
    "anneal": bool,
    "mix": dict,
    "available": dict,
}
