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
TOTALS = {
    "mamba2-370m": 368_346_624,  # state-spaces/mamba's own code builds these three
    "mamba2-780m": 780_161_280,
    "mamba2-1.3b": 1_343_757_312,
    "rwkv7-goose-world3-1.5b": 1_527_404_544,  # elements in the hub's files of these two
    "rwkv7-goose-world3-2.9b": 2_947_735_040,
}
PUBLISHED = {  # billions: all, and those a token uses less the embedding (MiniMax: and the head)
    "deepseek-v3": ("671", "36.6"),  # github.com/deepseek-ai/DeepSeek-V3, README_WEIGHTS.md
    "minimax-m1": ("456", "45.9"),  # arXiv:2501.08313, abstract
    "qwen3-next-80b-a3b": ("80", ""),  # its name
    "recurrentgemma-2b": ("", "2"),  # arXiv:2404.07839v1, abstract
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


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_are_these_rounded(name):
    model, tables = presets.preset(name), 2 if name == "minimax-m1" else 1
    counts = model.params(), model.params_active() - tables * model.params_embedding()
    for count, said in zip(counts, PUBLISHED[name], strict=True):
        assert not said or f"{count / 1e9:.{len(said.partition('.')[2])}f}" == said


def test_lfm2_is_as_large_as_its_card_says():
    """https://huggingface.co/LiquidAI/LFM2-1.2B: 10 convolutions, 6 attentions."""
    lfm2 = presets.preset("lfm2-1.2b")
    assert lfm2.params() == 1_170_340_608
    assert (lfm2.pattern.count("m"), lfm2.pattern.count("a")) == (10, 6)


def test_rwkv7_has_the_tensors_of_the_hubs_file():
    """2.9B's file holds 1,059 tensors, 829 of them with 934,049,280 elements in the time mixes."""
    weights = presets.preset("rwkv7-goose-world3-2.9b").weights()
    time = [n for name, n in weights.items() if ".attn." in name]
    assert (len(weights), len(time), sum(time)) == (1059, 829, 934_049_280)


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
