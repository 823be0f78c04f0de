"""Every published model counts exactly: parameters, active ones, and cache bytes at two contexts.

`data/models.json` was counted by building each model with transformers 5.23 (BlackMamba and
mamba2attn with their own code) on torch's `meta` device; `data/configs` has each model's config as
transformers saves it, with every field and with only those that differ from the defaults.
"""

import json
from pathlib import Path

import pytest

from cookbook_lib.calculators import presets
from cookbook_lib.calculators.configs import read_config

DATA = Path(__file__).parent / "data"
FACTS = {fact["name"]: fact for fact in json.loads((DATA / "models.json").read_text())}
FILES = sorted(DATA.glob("configs/*/*.json"))
TOTALS = {  # state-spaces/mamba's own code builds these
    "mamba2-370m": 368_346_624,
    "mamba2-780m": 780_161_280,
    "mamba2-1.3b": 1_343_757_312,
}


def check(model, fact):
    assert model.params() == fact["total_params"]
    assert model.params_active() == fact["active_params"]
    assert model.params_embedding() == fact["embedding_params"]
    for tokens, cache in fact["cache_bytes"].items():
        kinds = {kind: model.state_bytes(kind, s=int(tokens)) for kind in ("kv", "conv", "ssm")}
        assert kinds == dict(zip(kinds, (cache[k] for k in cache), strict=True))


@pytest.mark.parametrize("name", FACTS)
def test_presets_are_exact(name):
    check(presets.preset(name), FACTS[name])


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_config_files_are_exact(path):
    check(read_config(path), FACTS[path.parent.name])


@pytest.mark.parametrize("name", TOTALS)
def test_totals_of_models_without_a_fact(name):
    assert presets.preset(name).params() == TOTALS[name]


def test_every_preset_is_checked_and_says_where_it_comes_from():
    assert set(presets.names()) == {name.lower() for name in FACTS} | set(TOTALS)
    for name in presets.names():
        entry = presets.entry(name)
        assert entry["name"].lower() == name and "config" in entry
        assert "huggingface.co/" in entry["source"] or "github.com/" in entry["source"]


def test_shared_blocks_are_used_more_often_than_they_are_stored():
    zamba2 = presets.preset("zamba2-2.7b")
    one_block = 26 * 2560**2 + 3 * 2560
    assert zamba2.params_used() == zamba2.params() + (9 - 2) * one_block
    llama = presets.preset("llama-3.1-8b")
    assert llama.params_used() == llama.params() == llama.params_active()


def test_the_unused_lora_pairs_are_the_difference_between_the_two_totals():
    """Zyphra's own code allocates 2,688,756,640: a pair for each hybrid layer in both blocks."""
    zamba2 = presets.preset("zamba2-2.7b")
    lora = sum(r.params for r in zamba2.costs() if r.component == "lora")
    assert zamba2.params() + lora == 2_688_756_640


def test_a_name_may_stop_where_only_one_preset_goes_on():
    assert presets.resolve("Zamba-7B") == presets.preset("zamba-7b-v1")
    with pytest.raises(ValueError, match="no preset is called 'zamba2'; near to it: zamba2-1.2b, "):
        presets.resolve("zamba2")
    with pytest.raises(ValueError, match="near to it: llama-2-7b"):
        presets.resolve("lama-2-7b")


def test_a_preset_that_is_counted_twice_elsewhere_says_which_total_it_prints():
    for name in ("zamba2-2.7b", "zamba2-7b"):
        assert f"{presets.preset(name).params():,} is printed here" in presets.entry(name)["note"]
