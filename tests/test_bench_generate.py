"""Few bits lose what their step says, split-K is attention, and the commands that time it run."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import one_thread  # noqa: F401 (a fixture)

from cookbook_lib.benchmarks.shapes import config_of, their_model
from cookbook_lib.blocks.attention import attention_parallel
from cookbook_lib.blocks.models import Options, Residual
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.cli import main
from cookbook_lib.decoding.quantised import Formats, rounded
from cookbook_lib.decoding.split_k import split_k
from cookbook_lib.training.tiny import tiny

STEADY = settings(max_examples=30, deadline=None, derandomize=True, database=None)


@STEADY
@given(st.integers(0, 99), st.sampled_from(("int8", "int4")), st.floats(1e-3, 1e3))
def test_rounding_moves_a_number_by_half_a_step_at_most(seed, how, size):
    x = size * torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(seed))
    most = x.abs().amax(-1, keepdim=True)
    step = most / {"int8": 127, "int4": 7}[how]
    got = rounded(x, how)
    assert ((got - x).abs() <= step * (0.5 + 127 * 2**-11) + 1e-7).all()  # the scale is a half
    assert len(torch.unique((got / step).round())) <= {"int8": 255, "int4": 15}[how]
    assert torch.equal(rounded(x, ""), x)
    assert torch.equal(rounded(torch.zeros(2, 4), how), torch.zeros(2, 4))


def test_formats_round_what_was_written_and_count_its_bytes():
    torch.manual_seed(0)
    model = Residual(tiny("ma", 11), Options(rope=RoPE())).requires_grad_(False)
    tokens = torch.randint(0, 11, (2, 9))
    cache, plain = model.new_cache(2, 16), model.new_cache(2, 16)
    few = Formats(kv="int4", ssm="int8")
    model(tokens, cache)
    few.store(cache, 9)
    model(tokens, plain)
    for name, how in (("k", "int4"), ("v", "int4")):
        want = plain.states["1.mixer"][name]
        assert torch.equal(cache.states["1.mixer"][name], rounded(want, how))
    assert torch.equal(
        cache.states["0.mixer"]["ssm"], rounded(plain.states["0.mixer"]["ssm"], "int8")
    )
    assert torch.equal(cache.states["0.mixer"]["conv"], plain.states["0.mixer"]["conv"])
    kv, conv, ssm = (
        model.spec.state_bytes(k, b=2, s=16, dtype="fp32") for k in ("kv", "conv", "ssm")
    )
    assert Formats().nbytes(cache) == cache.nbytes == kv + conv + ssm
    rows = 2 * 2 * 2 * 16, 2 * 4 * 32  # k and v of two heads; rows of four heads' states
    assert few.nbytes(cache) == kv // 8 + 2 * rows[0] + conv + ssm // 4 + 2 * rows[1]
    with pytest.raises(ValueError, match="kv is 'int3', expected one of"):
        Formats(kv="int3")


@STEADY
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 70), st.integers(1, 20))
def test_split_k_is_attention(b, r, s, parts):
    g = torch.Generator().manual_seed(s)
    shapes = (b, 2 * r, 1, 8), (b, 2, s, 8), (b, 2, s, 8)
    q, k, v = (3 * torch.randn(*shape, generator=g, dtype=torch.float64) for shape in shapes)
    for scale in (None, 100.0):
        want = attention_parallel(q, k, v, scale)
        assert (split_k(q, k, v, parts, scale) - want).abs().max() < 1e-12


def test_split_k_in_bf16_loses_hardly_more_than_one_kernel():
    g = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, h, n, 64, generator=g).bfloat16() for h, n in ((8, 1), (2, 999), (2, 999))
    )
    want = attention_parallel(q.double(), k.double(), v.double())
    errors = [
        (y.double() - want).abs().mean()
        for y in (split_k(q, k, v, 16), split_k(q, k, v, 1), attention_parallel(q, k, v))
    ]
    assert max(errors[:2]) < 3 * errors[2]
    with pytest.raises(ValueError, match="parts is 0, expected at least 1"):
        split_k(q, k, v, 0)


def test_bf16_is_as_near_to_fp32_as_in_transformers():
    """The products of a step take another way in bf16 than those of transformers."""
    theirs, ours = their_model(config_of("zamba2-mid", 128), torch.bfloat16, "cpu")
    exact, _ = their_model(config_of("zamba2-mid", 128), torch.float32, "cpu")
    exact.load_state_dict(theirs.state_dict())
    tokens = torch.randint(0, 1000, (3, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want, past = exact(tokens).logits, None
        cache, got, other = ours.new_cache(3, 12), [], []
        for i in range(12):
            got.append(ours(tokens[:, i : i + 1], cache))
            out = theirs(tokens[:, i : i + 1], past_key_values=past, use_cache=True)
            past = out.past_key_values
            other.append(out.logits)
    ours, theirs = ((torch.cat(y, 1).float() - want).abs().mean() for y in (got, other))
    assert ours < 1.1 * theirs


def ran(*args, capsys) -> list[dict]:
    main(["bench", *args, "--budget", "0.01", "--json"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_bench_generate(tmp_path, capsys):
    args = ("zamba2-mid", "--width", "64", "--context", "9", "33", "--batch", "1", "2")
    out = tmp_path / "rows.jsonl"
    rows = ran("generate", *args, "--against", "transformers", "--out", str(out), capsys=capsys)
    assert [(r["batch"], r["context"]) for r in rows] == [(1, 9), (1, 33), (2, 9), (2, 33)]
    assert all(r["largest_relative_difference"] < 1e-4 for r in rows)
    assert len(out.read_text().splitlines()) == 4
    assert all(set(r["seconds"]) == {"ours", "theirs"} and r["read_rate"] > 0 for r in rows)
    rows = ran(
        "generate", "mamba2-mid", "llama-mid", "--width", "64", "--dtype", "bf16", capsys=capsys
    )
    assert [r["model"] for r in rows] == ["mamba2-mid", "llama-mid"]
    assert rows[0]["times_as_fast"] is None and rows[1]["cache_bytes"] == 12 * 2 * 64 * 1024 * 2


def test_bench_first_token_and_split_k(capsys):
    rows = ran(
        "first-token", "zamba2-mid", "llama-mid", "--width", "64", "--prompt", "16", capsys=capsys
    )
    assert all(r["peak_bytes"] >= r["weight_bytes"] + r["cache_bytes"] for r in rows)
    rows = ran("split-k", "--context", "65", "--parts", "1", "4", "--dtype", "fp64", capsys=capsys)
    assert [r["parts"] for r in rows] == [None, 1, 4]
    assert max(r["largest_difference"] for r in rows) < 1e-14


WRONG = (
    (("generate", "--context", "0"), "context is 0, expected at least 1"),
    (("generate", "--width", "100"), "width is 100, expected a multiple of 64"),
    (("generate", "--graph"), "graph is True, expected device 'cuda'"),
    (("generate", "gpt-mid"), "no model is called 'gpt-mid', expected a preset or zamba2-mid"),
    (("generate", "llama-mid", "--against", "transformers"), "expected 'nothing' unless the model"),
    (("first-token", "--prompt", "0"), "prompt is 0, expected at least 1"),
    (("split-k", "--heads", "5"), "heads is 5, expected a multiple of kv-heads (8)"),
    (("split-k", "--parts", "0"), "parts is 0, expected at least 1"),
)


@pytest.mark.parametrize("args, line", WRONG)
def test_bench_says_what_is_wrong(args, line, capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", *args])
    said = capsys.readouterr().err
    assert end.value.code == 2 and line in said and said.count("\n") == 1
