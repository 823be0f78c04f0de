"""What the planner's page loads, made when the site is built: library, form and scripts."""

import io
import zipfile
from html import escape
from pathlib import Path

from cookbook_lib.calculators import presets
from cookbook_lib.publishing.planner.settings import INPUTS, PASTED, Input

PACKAGES = (  # what the calculators in a browser need of cookbook_lib
    "__init__.py",
    "calculators",
    "commands/__init__.py",
    "commands/output.py",
    "publishing/__init__.py",
    "publishing/tables.py",
    "publishing/planner",
)


def library(root: Path) -> bytes:
    """The packages as a zip that is the same for the same sources."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(sources(root / "cookbook_lib")):
            info = zipfile.ZipInfo(str(file.relative_to(root)), (2020, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, file.read_bytes())
    return made.getvalue()


def sources(package: Path) -> set[Path]:
    found = set()
    for name in PACKAGES:
        path = package / name
        every = [path] if path.is_file() else path.rglob("*")
        found |= {f for f in every if f.suffix in (".py", ".json")}
    return found


def form() -> str:
    """The form: models, and a field for each of INPUTS, in groups."""
    names = "".join(f'<option value="{name}">' for name in (*presets.names(), PASTED))
    groups: dict[str, list[str]] = {}
    for name, of in INPUTS.items():
        groups.setdefault(of.group, []).append(control(name, of))
    sets = "".join(
        f"<fieldset><legend>{group}</legend>{''.join(fields)}</fieldset>"
        for group, fields in groups.items()
    )
    return (
        '<form class="planner-form" autocomplete="off">'
        f'<datalist id="planner-models">{names}</datalist>'
        f"<fieldset><legend>Models</legend>{model('a', 'Model')}{model('b', 'Beside it')}"
        f'<details class="planner-config"><summary>Paste a <code>{PASTED}</code></summary>'
        f'<label for="planner-config">Its text; the model is then <code>{PASTED}</code></label>'
        '<textarea id="planner-config" name="config" rows="8" spellcheck="false"></textarea>'
        f"</details></fieldset>{sets}</form>"
    )


def model(name: str, label: str) -> str:
    """A model's name, and a place for its pattern and sizes."""
    hint = "a preset; empty: none" if name == "b" else "a preset, or changes behind a comma"
    return (
        f'<div class="planner-field"><label for="planner-{name}">{label}</label>'
        f'<input id="planner-{name}" name="{name}" list="planner-models" spellcheck="false" '
        f'aria-describedby="planner-{name}-hint"><small id="planner-{name}-hint">{hint}</small>'
        f'</div><details class="planner-sizes" data-model="{name}"><summary>Pattern and sizes'
        f"{' of the second' * (name == 'b')}</summary><div></div></details>"
    )


def control(name: str, of: Input) -> str:
    """A field: a slider through powers of two, a choice or a number."""
    id, shown = f"planner-{name}", ""
    said = f' aria-describedby="{id}-hint"' if of.hint else ""
    if of.kind == "choice":
        options = "".join(
            f"<option{' selected' * (word == of.default)}>{word}</option>" for word in of.among
        )
        field = f'<select id="{id}" name="{name}"{said}>{options}</select>'
    elif of.kind == "slider":
        at = int(of.default).bit_length() - 1
        shown = f'<output for="{id}">{of.default:,}</output>'
        field = (
            f'<input type="range" id="{id}" name="{name}" min="{of.low}" max="{of.high}" '
            f'value="{at}" data-base="{of.base}"{said}>'
        )
    else:
        given = "" if of.default == "" else f"{of.default:g}"
        field = f'<input id="{id}" name="{name}" inputmode="decimal" value="{given}"{said}>'
    hint = f'<small id="{id}-hint">{escape(of.hint)}</small>' if of.hint else ""
    return (
        f'<div class="planner-field"><label for="{id}">{of.label}</label>{shown}{field}{hint}</div>'
    )
