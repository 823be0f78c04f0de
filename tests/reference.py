"""transformers as the second opinion: what it builds and caches, on torch's `meta` device."""

import json
import warnings
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from cookbook_lib.calculators.configs import read_config
from cookbook_lib.calculators.model import Model


def build(config) -> torch.nn.Module:
    """The transformers model of this configuration, without data, in bf16."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notices about kernels that are not installed
        module = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    module.set_experts_implementation("batched_mm")  # the default wants widths of 16 bytes
    return module


def parameters(module: torch.nn.Module) -> dict[str, int]:
    """Elements of each parameter; a tied one is listed once."""
    return {name: p.numel() for name, p in module.named_parameters()}


def cache_bytes(module: torch.nn.Module, b: int, s: int) -> int:
    """Bytes of all tensors in the cache after a forward pass over s tokens of b sequences.

    Whole numbers are left out: they say how wide a window is, not what was seen. RecurrentGemma
    keeps its recurrent states in the modules, and does not return the cache that it makes.
    """
    tokens = torch.zeros(b, s, dtype=torch.long, device="meta")
    inside = [part for part in module.modules() if hasattr(part, "conv1d_state")]
    silent = module.config.model_type == "recurrent_gemma"
    given = {"past_key_values": DynamicCache(config=module.config)} if silent else {}
    with torch.no_grad():
        out = dict(module(tokens, use_cache=True, **given)) | given
    cache = out["cache_params" if "cache_params" in out else "past_key_values"]  # pure SSMs' name
    kept = [(part.conv1d_state, part.rg_lru.recurrent_states) for part in inside]
    return sum(t.nbytes for t in tensors([cache, kept], set()) if t.is_floating_point())


def tensors(thing, seen: set[int]):
    """Every distinct tensor that an object holds, however deep."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, dict):
        for x in thing.values():
            yield from tensors(x, seen)
    elif isinstance(thing, (list, tuple, set)):
        for x in thing:
            yield from tensors(x, seen)
    elif hasattr(thing, "__dict__") and type(thing).__module__.startswith("transformers."):
        yield from tensors(vars(thing), seen)


def saved(config, folder: Path, full: bool) -> Path:
    """The configuration as a file: every field, or only those that differ from the defaults."""
    data = config.to_dict() if full else config.to_diff_dict()
    data["model_type"] = config.model_type
    path = folder / "config.json"
    path.write_text(json.dumps(data, default=str))
    return path


def assert_same(model_type: str, fields: dict, folder: Path, b: int = 2, s: int = 7) -> Model:
    """Parameters by name and size, and cache bytes, equal transformers'."""
    config = AutoConfig.for_model(model_type, **fields)
    module = build(config)
    for full in (False, True):
        model = read_config(saved(config, folder, full))
        assert model.weights() == parameters(module)
        assert model.state_bytes(b=b, s=s) == cache_bytes(module, b, s)
    return model
