"""What the planner writes under its form, and its one entry point."""

import json
from collections.abc import Callable
from typing import Any

from cookbook_lib.publishing.planner import charts
from cookbook_lib.publishing.planner.answers import COMMANDS, cache_curve, model_of, report, shell
from cookbook_lib.publishing.planner.sections import (
    commands,
    components,
    drawing,
    fields,
    glance,
    head,
    legend,
    memory_bars,
    remedy,
    row,
)
from cookbook_lib.publishing.planner.settings import State, parse
from cookbook_lib.publishing.tables import Cell, size, span, table, whole

CONTEXTS = tuple(2**k for k in range(8, 21))


def respond(request: str) -> str:
    """What the page asks for, as JSON: {"parts": {"glance": HTML, …}, "errors": [line, …]}.

    request: {"state": {name: word}, "part": one of PARTS_OF}.
    """
    asked = json.loads(request)
    try:
        state = parse(asked["state"])
        return json.dumps(PARTS_OF[asked["part"]](state))
    except ValueError as error:
        return json.dumps({"parts": {}, "errors": [" ".join(str(error).split())]})


def quick(state: State) -> dict[str, Any]:
    """All that is there in a moment."""
    errors: list[str] = []
    models = {k: tried(errors, model_of, line, state.config) for k, line in state.models.items()}
    if models.get("A") is None:
        return {"parts": {}, "errors": errors}
    got = {
        name: {
            k: tried(errors, report, name, line, state.config, state.values, **options)
            if models[k]
            else None
            for k, line in state.models.items()
        }
        for name, options in (("cost", {}), ("memory", {"search": False}), ("time", {}))
    }
    names = {k: m.name if m else "" for k, m in models.items()}
    batch = state.values["batch"]
    lines = {k: cache_curve(m, batch, CONTEXTS) for k, m in models.items() if m}
    return {
        "parts": {
            "glance": glance(names, got, state),
            "cache": charts.curves(
                "Bytes of the cache against the context", CONTEXTS, lines, state.values["context"]
            )
            + legend(names),
            "memory": memory_bars(got["memory"]),
            "components": components(names, got["cost"]),
            "models": "".join(drawing(m) for m in models.values() if m),
            "commands": commands(state),
        },
        "fields": {k: fields(line, state.config, models[k]) for k, line in state.models.items()},
        "errors": errors,
    }


def serving(state: State) -> dict[str, Any]:
    """What takes a moment longer."""
    errors: list[str] = []
    served = {
        k: tried(errors, report, "serve", line, state.config, state.values)
        for k, line in state.models.items()
    }
    names = {
        k: m.name if (m := tried([], model_of, line, state.config)) else line
        for k, line in state.models.items()
    }
    rows = [
        row("Time to the first token", served, lambda r: span(r, "ttft")),
        row("Time for each further token", served, lambda r: span(r, "tpot")),
        row("Memory", served, lambda r: size(r["memory_bytes"])),
        row("Largest batch", served, lambda r: whole(r["largest_batch"])),
        row(
            "Longest context",
            served,
            lambda r: whole(n) if (n := r["longest_context"]) else Cell("no limit"),
        ),
    ]
    return {"parts": {"serving": table("Serving on one chip", head(names), rows)}, "errors": errors}


def advice(state: State) -> dict[str, Any]:
    """What would make a training fit that does not; in large models there is much to try."""
    reports = [
        tried([], report, "memory", line, state.config, state.values)
        for line in state.models.values()
    ]
    said = "".join(f"<p>{remedy(r)}</p>" for r in reports if r and not r["fits"])
    return {"parts": {"advice": said}, "errors": []}


def export(state: State) -> dict[str, Any]:
    """Every report of every model, as its command prints it with --json."""
    errors: list[str] = []
    every = {
        k: {
            name: {
                "command": shell(name, line, state.values),
                "report": tried(errors, report, name, line, state.config, state.values),
            }
            for name in COMMANDS
        }
        for k, line in state.models.items()
    }
    return {"parts": {"json": json.dumps(every, indent=2, allow_nan=False)}, "errors": errors}


def tried(errors: list[str], make: Callable, *args, **options) -> Any:
    """The result, or None with its error noted once."""
    try:
        return make(*args, **options)
    except ValueError as error:
        line = " ".join(str(error).split())
        if line not in errors:
            errors.append(line)
        return None


PARTS_OF: dict[str, Callable[[State], dict[str, Any]]] = {
    "quick": quick,
    "serving": serving,
    "advice": advice,
    "export": export,
}
