"""Models with random weights to decode with: published shapes, and some for a CPU.

The numbers in weights and caches do not matter to the time that a step takes, so caches are filled
with random numbers instead of by reading a prompt of that length.
"""

import warnings
from typing import Any

import torch
from torch import nn

from cookbook_lib.blocks.cache import Cache
from cookbook_lib.blocks.models import LanguageModel, build
from cookbook_lib.calculators.presets import entry

MID = "zamba2-mid"


def config_of(model: str, width: int = 768) -> dict[str, Any]:
    """The config of a preset, or of zamba2-mid, mamba2-mid or llama-mid: 12 layers, `width` wide.

    zamba2-mid is Zamba2-1.2B with three of them that ask the shared block.
    """
    if not model.endswith("-mid"):
        return dict(entry(model)["config"])
    if width < 64 or width % 64:
        raise ValueError(f"width is {width}, expected a multiple of 64")
    if model not in MIDS:
        raise ValueError(f"no model is called {model!r}, expected a preset or {', '.join(MIDS)}")
    name, sizes = MIDS[model]
    own = {key: value * width // 64 if key in SCALED else value for key, value in sizes.items()}
    return dict(entry(name)["config"]) | own | {"hidden_size": width, "num_hidden_layers": 12}


KINDS = ["hybrid" if i % 4 == 3 else "mamba" for i in range(12)]
MIDS: dict[str, tuple[str, dict[str, Any]]] = {  # preset, and what differs; some for each 64 wide
    MID: (
        "zamba2-1.2b",
        {
            "layers_block_type": KINDS,
            "n_mamba_heads": 2,
            "mamba_d_state": 64,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "intermediate_size": 256,
            "adapter_rank": 64,
        },
    ),
    "mamba2-mid": ("mamba2-1.3b", {"num_heads": 2}),
    "llama-mid": (
        "llama-2-7b",
        {"num_attention_heads": 1, "num_key_value_heads": 1, "intermediate_size": 172},
    ),
}
SCALED = ("n_mamba_heads", "num_heads", "num_attention_heads", "num_key_value_heads")
SCALED += ("intermediate_size",)


def random_model(config: dict[str, Any], dtype: torch.dtype, device: str) -> LanguageModel:
    """Ours, with weights of a size that keeps activations near 1."""
    with torch.device("meta"):
        model = build(config).to(dtype)
    return filled(model.to_empty(device=device)).eval().requires_grad_(False)


@torch.no_grad()
def filled(model: nn.Module) -> nn.Module:
    """The same with random weights, drawn in place."""
    torch.manual_seed(0)
    for name, p in model.named_parameters():
        if name.endswith("A_log"):
            p.uniform_(0, 2.7)  # rates from 1 to 15
        elif name.endswith("dt_bias"):
            p.uniform_(-6, -2)  # steps from 0.0025 to 0.13
        elif p.ndim == 1:
            p.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            p.normal_(std=p.shape[-1] ** -0.5)
    return model


def their_model(config: dict[str, Any], dtype: torch.dtype, device: str) -> tuple[nn.Module, Any]:
    """transformers' Zamba2, and ours with the same weights, in the same memory."""
    if config["model_type"] != "zamba2":
        raise ValueError("against is 'transformers', expected 'nothing' unless the model is Zamba2")
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()  # notices about kernels that are not installed
    # time_step_min: transformers clamps to it in a prompt but not in a single step, so leave it out
    given = config | {"time_step_min": 1e-9}
    named = AutoConfig.for_model(**given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoModelForCausalLM.from_config(named, dtype=dtype).to(device)
    theirs = filled(theirs).eval().requires_grad_(False)
    with torch.device("meta"):
        ours = build(given)
    weights = theirs.state_dict()
    ours.load_state_dict({name: weights[name] for name in ours.state_dict()}, assign=True)
    return theirs, ours.eval().requires_grad_(False)


def fill(cache: Cache, context: int) -> Cache:
    """`cache` as after `context` tokens, of random numbers."""
    random = torch.Generator(next(t for _, t in cache.tensors()).device).manual_seed(1)
    for key, t in cache.tensors():
        part = t.narrow(cache.slots[key], 0, context) if key in cache.slots else t
        part.normal_(generator=random)
    cache.length = context
    return cache


def their_cache(theirs: nn.Module, cache: Cache, context: int) -> Any:
    """transformers' cache with the numbers of ours."""
    from transformers import DynamicCache

    past = DynamicCache(config=theirs.config)
    for use, state in cache.states.items():
        layer = past.layers[int(use.partition(".")[0])]
        if "k" in state:
            layer.update(*(state[name][:, :, :context].clone() for name in "kv"))
        else:
            layer.update_conv_state(state["conv"].clone())
            layer.update_recurrent_state(state["ssm"].clone())
    return past
