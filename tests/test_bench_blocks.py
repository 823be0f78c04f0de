"""The benchmark of blocks runs what the spec declares, on the same weights, and says where."""

import json

import pytest
import torch

from cookbook_lib.benchmarks import blocks, whole_models
from cookbook_lib.benchmarks.blocks import How, bench_block
from cookbook_lib.benchmarks.ceilings import Ceilings
from cookbook_lib.benchmarks.named import NAMES, Sizes, sized
from cookbook_lib.benchmarks.passes import inputs, shape, states, timed, work
from cookbook_lib.benchmarks.sides import ours
from cookbook_lib.benchmarks.timing import Stop
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.presets import preset
from cookbook_lib.measuring import Timing
from cookbook_lib.results import read

TINY = {
    "attention": {"head_dim": 8},
    "mamba2": {"headdim": 8, "d_state": 8},
    "mamba3": {"headdim": 8, "d_state": 8},
    "gated-deltanet": {"head_k_dim": 8, "head_v_dim": 8},
    "rwkv7": {"headdim": 8},
    "embedding": {"vocab": 50},
    "head": {"vocab": 50},
}
SMALL = {"tokens": (24,), "context": (9,), "seconds": 0.01, "json": True}
PASSES = ("forward", "backward", "training", "decode")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One thread, and ceilings that are known: measuring them is not what is tested here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    known = Timing(samples=[1.0] * 6, cold=1.0)
    roof = Ceilings(flops=1e11, bandwidth=1e10, matmul=known, copy=known)
    monkeypatch.setattr(blocks, "ceilings", lambda device, dtype: roof)
    yield
    torch.set_num_threads(threads)


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_spec_has_a_name_unless_it_cannot_be_run():
    without = {getattr(specs, name) for name in specs.__all__} - set(NAMES.values())
    assert {s.__name__ for s in without} == {
        *("Gate", "GatedConv", "KDA", "Lightning", "MLA", "MLSTM", "RGLRU")
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_block_runs_every_pass(name, capsys):
    sizes = Sizes(d_model=16, **TINY.get(name, {}))
    bench_block(name, sizes, passes=PASSES, **SMALL)
    rows = lines(capsys)
    assert [r["pass"] for r in rows] == list(PASSES)
    for r in rows:
        assert r["outcome"] == "measured" and r["seconds"]["median"] > 0 and r["seconds"]["count"]
        assert r["device"] and r["date"] and r["versions"]["torch"] == torch.__version__
        assert r["flops_per_second"] == r["flops"] / r["seconds"]["median"]
        assert r["roofline"] > 0 and r["peak_bytes"] > 0
    forward, backward, training, decode = (r["flops"] for r in rows)
    assert backward == 2 * forward and training == 3 * forward
    spec = sized(name, sizes)
    assert forward == spec.flops(b=1, l=24, attention="causal")
    assert decode == spec.flops(b=1, l=1, s=10)


def test_a_decode_step_sees_all_that_is_held():
    """The timed call gives what the module gives with those states, and can be called again."""
    torch.manual_seed(0)
    spec = sized("attention", Sizes(d_model=16, head_dim=8))
    run, module = shape("decode", 2, 24, 9), ours(spec)
    x, held = inputs(spec, run, "fp32", "cpu"), states(spec, run, "fp32", "cpu")
    torch.manual_seed(1)
    held = states(spec, run, "fp32", "cpu")
    torch.manual_seed(1)
    step = timed(module, spec, "decode", run, "fp32", x)
    want = module(x, held, start=9)
    assert held["k"].shape == (2, 2, 10, 8)
    assert torch.equal(step(), want) and torch.equal(step(), want)


def test_a_backward_pass_is_the_gradient():
    torch.manual_seed(0)
    spec = sized("mlp", Sizes(d_model=8))
    run, module = shape("forward", 1, 5, 0), ours(spec)
    x = inputs(spec, run, "fp32", "cpu")
    both, alone = (timed(module, spec, k, run, "fp32", x) for k in ("training", "backward"))
    first, again = alone(), alone()
    assert len(first) == 4 and all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert [g.shape for g in both()] == [g.shape for g in first]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_bytes_are_those_of_the_tensors(dtype):
    """A linear reads its weight and its input, and writes its output."""
    spec, size = specs.Linear(d_in=64, d_out=32), {"fp32": 4, "bf16": 2}[dtype]
    found = work(spec, "forward", shape("forward", 2, 8, 0), dtype)
    assert found == (2 * 2 * 8 * 64 * 32, size * (64 * 32 + 2 * 8 * (64 + 32)))
    assert work(spec, "training", shape("training", 2, 8, 0), dtype).nbytes == 3 * found.nbytes


@pytest.mark.parametrize("name", ["attention", "mamba1", "mamba2", "gated-deltanet"])
def test_both_sides_compute_the_same(name, capsys, tmp_path):
    out = tmp_path / "results.jsonl"
    sizes = Sizes(d_model=16, **TINY.get(name, {}))
    bench_block(name, sizes, against="transformers", out=out, **SMALL)
    rows = lines(capsys)
    assert rows == read(out) and [r["pass"] for r in rows] == ["forward", "training"]
    for r in rows:
        assert r["other"]["largest_relative_difference"] < 1e-5
        assert r["other"]["seconds"]["count"] == r["seconds"]["count"] and r["other"]["peak_bytes"]
        assert r["other"]["ratio"]["median"] > 0 and r["other"]["ratio"]["verdict"]
    bench_block(name, sizes, against="transformers", out=out, **SMALL)
    assert lines(capsys) == rows == read(out)  # what is there is not measured again


def test_a_table_says_what_was_measured(capsys):
    bench_block("mamba2", Sizes(d_model=16, **TINY["mamba2"]), **SMALL | {"json": False})
    table = capsys.readouterr().out
    assert "mamba2: d_model 16, d_state 8" in table and "1 x 1 after 9" in table
    assert "fp32 on" in table and "100.00 GFLOP/s and 10.00 GB/s" in table


TINY_MODEL = {
    "model_type": "zamba2",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "layers_block_type": ["mamba", "hybrid", "mamba"],
    "num_attention_heads": 4,
    "mamba_d_state": 8,
    "mamba_headdim": 8,
    "mamba_expand": 2,
    "n_mamba_heads": 8,
    "mamba_ngroups": 1,
    "vocab_size": 64,
    "adapter_rank": 4,
    "num_mem_blocks": 1,
    "hybrid_layer_ids": [1],
    "intermediate_size": 64,
}


def test_the_parts_of_a_model_are_all_its_blocks(tmp_path, capsys):
    config = tmp_path / "tiny/config.json"
    config.parent.mkdir()
    config.write_text(json.dumps(TINY_MODEL))
    out = tmp_path / "rows.jsonl"
    passes = ("forward", "training", "decode")
    bench_block(model=str(config), passes=passes, out=out, **SMALL)
    rows = lines(capsys)
    wholes = [r for r in rows if r["part"] == "whole"]
    assert [r["pass"] for r in wholes] == list(passes) and read(out) == rows
    for whole in wholes:
        parts = [r for r in rows if r["pass"] == whole["pass"] and r is not whole]
        assert sum(r["uses"] * r["flops"] for r in parts) == whole["flops"]
        assert whole["predicted"] == sum(r["uses"] * r["seconds"]["median"] for r in parts)
        assert whole["seconds"]["median"] > 0
        assert any(r["part"] == "attention" and r["sizes"]["d_in"] == 64 for r in parts)
    bench_block(model=str(config), passes=passes, out=out, **SMALL | {"json": False})
    assert capsys.readouterr().out.count("predicted / measured is") == 3 and read(out) == rows


def test_a_model_that_does_not_fit_is_measured_in_parts(monkeypatch):
    monkeypatch.setattr(whole_models, "free_bytes", lambda device: 1e9)
    how = How(device="cpu", dtype="bf16", graph=False, stop=Stop())
    from cookbook_lib.blocks.models import build
    from cookbook_lib.calculators import presets

    with torch.device("meta"):
        made = build(presets.entry("zamba2-7b")["config"])
    assert sum(n for _, n in whole_models.distinct(made).values()) == len(
        preset("zamba2-7b").layout
    )
    case = {"batch": 1, "dtype": "bf16", "pass": "forward", "tokens": 8, "context": 0}
    found = whole_models.whole_row(made, how, 2.5, **case)
    assert found["predicted"] == 2.5 and "and 1.0 GB are free" in found["outcome"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"block": "mamba3", "against": "transformers"}, "which has no mamba3 here"),
        ({"block": "mamba2", "against": "mamba_ssm"}, "need a GPU"),
        ({"block": "mlp", "sizes": Sizes(n_heads=2)}, "mlp has no such size: d_model, d_ff"),
        ({"block": "mamba1", "batch": 0}, "batch is 0, expected at least 1"),
        ({"block": "mamba1", "seconds": 0.0}, "seconds is 0.0, expected a number above 0"),
        ({"block": "mamba2", "sizes": Sizes(d_model=0)}, "d_model is 0"),
        ({"block": "mlp", "graph": True}, "graphs are CUDA's"),
        ({}, "block is None and model is None, expected one"),
        ({"model": "zamba2-7b", "against": "transformers"}, "expected 'nothing' for a model"),
        ({"model": "no-such"}, "no-such"),
    ],
)
def test_says_what_is_wrong(wrong, message):
    with pytest.raises(ValueError, match=message):
        bench_block(**SMALL | wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
@pytest.mark.parametrize("graph", [False, True])
def test_a_gpu_runs_every_pass(graph, capsys):
    sizes = Sizes(d_model=256)
    bench_block("mamba2", sizes, passes=PASSES, device="cuda", dtype="bf16", graph=graph, **SMALL)
    assert [r["outcome"] for r in lines(capsys)] == ["measured"] * 4
