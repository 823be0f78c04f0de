"""What a reader of the planner can set: one table for the form, the address and the commands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cookbook_lib.calculators.chips import CHIPS
from cookbook_lib.calculators.kept import RECOMPUTE
from cookbook_lib.calculators.storage import FORMATS

PASTED = "config.json"  # stands for the config that a reader pasted


@dataclass(frozen=True, kw_only=True)
class Input:
    """One setting. A slider moves through powers of `base`, a choice through `among`.

    optional: the empty word is a value, and means that nothing is said.
    """

    label: str
    default: int | float | str
    group: str
    hint: str = ""
    base: int = 2
    low: int = 0  # exponents of `base`
    high: int = 0
    among: tuple[str, ...] = ()
    unit: type = int
    optional: bool = False

    @property
    def kind(self) -> str:
        return "choice" if self.among else "slider" if self.high else "number"


def choice(label: str, default: str, among, group: str, hint: str = "") -> Input:
    return Input(label=label, default=default, among=tuple(among), group=group, hint=hint)


def slider(label: str, default: int, low: int, high: int, group: str, hint: str = "") -> Input:
    return Input(label=label, default=default, low=low, high=high, group=group, hint=hint)


RUN, TRAIN, SERVE = "Sequences", "Training", "Serving"
INPUTS: dict[str, Input] = {
    "context": slider("Context", 4096, 8, 20, RUN, "tokens of each sequence that the cache holds"),
    "batch": slider("Batch", 1, 0, 10, RUN, "sequences that run or are served at once"),
    "tokens": slider("Training length", 4096, 8, 17, RUN, "tokens of a training sequence"),
    "chip": choice("Chip", "h100", CHIPS, TRAIN),
    "gpus": slider("GPUs", 8, 0, 14, TRAIN, "in all"),
    "zero": choice("ZeRO", "1", "0123", TRAIN, "1 splits optimizer states, 2 gradients, 3 weights"),
    "tp": slider("Tensor parallel", 1, 0, 6, TRAIN, "ranks that split each block"),
    "pp": slider("Pipeline stages", 1, 0, 6, TRAIN),
    "micro_batch": slider("Micro-batch", 1, 0, 6, TRAIN, "sequences that a GPU runs at once"),
    "recompute": choice("Recompute", "none", RECOMPUTE, TRAIN, "in the backward pass"),
    "train_tokens": Input(
        label="Training tokens", default=1e12, unit=float, group=TRAIN, hint="such as 1e12"
    ),
    "mfu": Input(
        label="MFU",
        default="",
        unit=float,
        group=TRAIN,
        optional=True,
        hint="part of the peak, such as 0.4; without it the time is a lower bound",
    ),
    "price": Input(label="Price of a GPU hour", default="", unit=float, group=TRAIN, optional=True),
    "output": slider("Answer", 512, 4, 14, SERVE, "tokens that each sequence gets"),
    "weights": choice("Weights", "bf16", FORMATS, SERVE, "their format"),
}


@dataclass(frozen=True, kw_only=True)
class State:
    """What the page shows: one model or two, a pasted config, and every setting."""

    a: str = "zamba2-2.7b"
    b: str = ""
    config: str = ""
    values: Mapping[str, Any] = field(
        default_factory=lambda: {name: of.default for name, of in INPUTS.items()}
    )

    @property
    def models(self) -> dict[str, str]:
        """The models that are asked for: {"A": "zamba2-2.7b"}."""
        return {k: v for k, v in {"A": self.a, "B": self.b}.items() if v}


def parse(given: Mapping[str, str]) -> State:
    """The state that the words of an address or a form stand for; `ValueError` in one line."""
    values = {name: value(name, given.get(name)) for name in INPUTS}
    values["zero"] = int(values["zero"])
    models = {k: str(given[k]).strip() for k in ("a", "b", "config") if k in given}
    if not models.get("a", "-"):
        raise ValueError("no model is chosen: expected a preset's name or config.json")
    return State(values=values, **models)


def value(name: str, text: str | None) -> Any:
    """One setting from its word."""
    of = INPUTS[name]
    if text is None or text == "":
        return of.default
    if of.among:
        if text not in of.among:
            raise ValueError(f"{of.label} is {text!r}, expected one of {', '.join(of.among)}")
        return text
    try:
        number = of.unit(float(text)) if of.unit is int and float(text) % 1 == 0 else of.unit(text)
    except (ValueError, OverflowError):
        what = "a whole number" if of.unit is int else "a number"
        raise ValueError(f"{of.label} is {text!r}, expected {what}") from None
    return number
