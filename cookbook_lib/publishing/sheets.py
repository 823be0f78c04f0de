"""What the gallery says of one published model, each number from the calculator of a command.

The settings below are at once the arguments of the calculators and the flags of the commands that a
page prints, so a command gives the numbers that stand above it.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from cookbook_lib.calculators import presets
from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.diagram import RECURRENT
from cookbook_lib.calculators.memory import Training
from cookbook_lib.calculators.memory_plan import memory_report
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.report import cost_report
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.serving import Serving, serving_report

CONTEXTS = (4096, 131_072)
TRAIN: dict[str, Any] = {"chip": "h100", "gpus": 8, "zero": 1}
SERVE: dict[str, Any] = {"chip": "h100", "output": 512}
ATTENTION = ("attention", "mla")
KINDS = ("hybrid", "hybrid MoE", "recurrent", "recurrent MoE", "dense", "MoE")


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The sheet of one preset; each report is computed when it is first asked for."""

    name: str

    @cached_property
    def entry(self) -> dict[str, Any]:
        """The preset's file."""
        return presets.entry(self.name)

    @cached_property
    def model(self) -> Model:
        return presets.preset(self.name)

    @cached_property
    def costs(self) -> tuple[dict[str, Any], ...]:
        """What `cookbook cost` reports for each of CONTEXTS."""
        return tuple(cost_report(self.model, Run(l=n), n) for n in CONTEXTS)

    @cached_property
    def memory(self) -> dict[str, Any]:
        """What `cookbook memory` reports."""
        parallel = Parallel(**{k: v for k, v in TRAIN.items() if k != "chip"})
        return memory_report(self.model, Training(parallel=parallel), chip(TRAIN["chip"]))

    @cached_property
    def serving(self) -> Serving:
        return Serving(model=self.model, chip=chip(SERVE["chip"]))

    @cached_property
    def served(self) -> tuple[dict[str, Any] | None, ...]:
        """What `cookbook serve-cost` reports for each of CONTEXTS; None where it does not fit."""
        output = SERVE["output"]
        return tuple(
            serving_report(self.serving, batch=1, prompt=n, output=output)
            if self.serving.fits(1, n + output)
            else None
            for n in CONTEXTS
        )

    @property
    def title(self) -> str:
        return self.model.name

    @property
    def kind(self) -> str:
        """One of KINDS: what mixes the sequence, and whether a layer holds routed experts."""
        held = set().union(*map(components, self.model.legend().values()))
        attends, recurs = held & set(ATTENTION), held & set(RECURRENT)
        mixer = "hybrid" if attends and recurs else "recurrent" if recurs else "dense"
        moe = "moe" in held
        return "MoE" if moe and mixer == "dense" else mixer + " MoE" * moe

    @property
    def attention_layers(self) -> int:
        """Layers that attend, alone or beside another mixer."""
        attends = {k for k, v in self.model.legend().items() if components(v) & set(ATTENTION)}
        return sum(letter in attends for letter in self.model.pattern)

    def cost_command(self, context: int) -> str:
        return f"cookbook cost {self.name} {flags({'tokens': context, 'context': context})}"

    def memory_command(self) -> str:
        return f"cookbook memory {self.name} {flags(TRAIN)}"

    def changed_command(self) -> str:
        """The training after the cheapest change that makes it fit; "" if it fits, or none does."""
        words = (self.memory["change"] or "").split()
        if not words:
            return ""
        replaced = {k: v for k, v in TRAIN.items() if f"--{k}" not in words}
        return f"cookbook memory {self.name} {flags(replaced)} {' '.join(words)}"

    def serve_command(self, context: int) -> str:
        return f"cookbook serve-cost {self.name} {flags({'prompt': context} | SERVE)}"


def components(legend: str) -> set[str]:
    return set(legend.split(", "))


def flags(settings: dict[str, Any]) -> str:
    return " ".join(f"--{name} {value}" for name, value in settings.items())


@cache
def sheet(name: str) -> Sheet:
    """The sheet of a preset, one for all pages that show it."""
    return Sheet(name=name)


def runs(name: str) -> bool:
    """Whether the blocks of this package also run the model, by their own reader of its config."""
    from cookbook_lib.blocks.models.option_readers import read_options  # with PyTorch
    from cookbook_lib.calculators.configs import fields_of

    try:
        read_options(fields_of(presets.entry(name)["config"], name), presets.preset(name))
    except ValueError:
        return False
    return True
