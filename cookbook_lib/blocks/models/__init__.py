"""Models as short compositions of blocks: `build` makes one from its config, with random weights.

`cookbook_lib.blocks.checkpoint.load_checkpoint` fills one with published weights.
"""

from pathlib import Path
from typing import Any

from cookbook_lib.blocks.models.language_model import LanguageModel
from cookbook_lib.blocks.models.option_readers import read_options
from cookbook_lib.blocks.models.options import Options
from cookbook_lib.blocks.models.residual import Residual
from cookbook_lib.blocks.models.zamba import Zamba, Zamba2
from cookbook_lib.calculators.configs import fields_of, from_fields, read_fields

__all__ = ["LanguageModel", "Options", "Residual", "Zamba", "Zamba2", "build"]

WIRINGS = {"zamba": Zamba, "zamba2": Zamba2}  # every other family: Residual


def build(config: str | Path | dict[str, Any]) -> LanguageModel:
    """The model of a `config.json`, of its folder, or of its content, with random weights.

    Under `torch.device("meta")` it takes no memory. `ValueError` says what is not supported.
    """
    parsed = isinstance(config, dict)
    f = fields_of(config, "the config") if parsed else read_fields(config)
    spec = from_fields(f)
    return WIRINGS.get(spec.family, Residual)(spec, read_options(f, spec))
