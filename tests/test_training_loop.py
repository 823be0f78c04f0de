"""A step of the loop is the step that its definition says, however it is divided.

The loss is the mean over all tokens that have a target: cut into micro-batches, or with documents
packed or apart, it is the same. What decays, what is scaled, and what moves each weight goes by
name, on every block.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from looped import VOCAB, Drawn, Flat, hybrid, losses, one_thread, run, shared  # noqa: F401
from torch import nn

from cookbook_lib.blocks.models import Options as Blocks
from cookbook_lib.blocks.models import Residual, build
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.calculators import specs
from cookbook_lib.training.initialisation import outputs
from cookbook_lib.training.loop import Options, Run
from cookbook_lib.training.optimizers import decays, kinds
from cookbook_lib.training.sampling import IGNORE, Batch
from cookbook_lib.training.tiny import tiny

pytestmark = pytest.mark.usefixtures("one_thread")
D = 32
NEWER = {
    "3": specs.Mamba3(d_model=D, d_state=8, headdim=16),
    "d": specs.GatedDeltaNet(d_model=D, n_k_heads=2, n_v_heads=4, head_k_dim=8, head_v_dim=8),
    "7": specs.RWKV7(d_model=D, headdim=16, rank_w=4, rank_a=4, rank_v=4, rank_g=4, first=True),
    "c": specs.RWKV7ChannelMix(d_model=D, d_ff=64),
    "1": specs.Mamba1(d_model=D, nheads=2, d_state=4, dt_norm=True),
    "e": specs.MoE(d_model=D, d_ff=32, n_experts=4, topk=2),
    "q": specs.Attention(
        d_model=D, n_heads=2, n_kv_heads=1, head_dim=16, qkv_bias=True, qk_norm="head"
    ),
}


def newer(pattern: str = "".join(NEWER)) -> Residual:
    """Every block beside those of `tiny`, each behind its norm."""
    base = tiny("m", VOCAB, d_model=D)
    norm = specs.Norm(d_model=D)
    layers = tuple(
        (k, (("model.layers.{i}.norm", norm), ("model.layers.{i}.mixer", NEWER[k])))
        for k in dict.fromkeys(pattern)
    )
    return Residual(replace(base, pattern=pattern, layers=layers), Blocks(rope=RoPE()))


def config(model_type: str, **more) -> dict:
    return {"model_type": model_type, "vocab_size": VOCAB, "hidden_size": D} | more


ZAMBA = config(
    "zamba",
    num_hidden_layers=4,
    layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
    n_mamba_heads=2,
    mamba_d_state=4,
    mamba_dt_rank=4,
    num_attention_heads=4,
    num_key_value_heads=4,
    intermediate_size=64,
)
JAMBA = config(
    "jamba",
    num_hidden_layers=4,
    attn_layer_period=2,
    attn_layer_offset=1,
    expert_layer_period=2,
    expert_layer_offset=1,
    num_experts=4,
    num_attention_heads=2,
    num_key_value_heads=1,
    intermediate_size=64,
    mamba_d_state=4,
    mamba_dt_rank=4,
)
MODELS = {
    "hybrid": hybrid,
    "zamba2": shared,
    "zamba": lambda: build(ZAMBA),
    "jamba": lambda: build(JAMBA),
    "newer": newer,
}


def mean_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The definition: all documents apart, one after the other, the mean over all targets."""
    parts = []
    for tokens, targets, documents in zip(
        batch.tokens, batch.targets, batch.documents, strict=True
    ):
        for document in np.unique(documents):
            mine = documents == document
            x, y = (torch.from_numpy(part[mine])[None] for part in (tokens, targets))
            parts.append(F.cross_entropy(model(x)[0], y[0], reduction="none", ignore_index=IGNORE))
    targets = int((batch.targets != IGNORE).sum())
    return torch.cat(parts).sum() / targets


@pytest.mark.parametrize("name", MODELS)
def test_a_packed_step_is_that_of_the_documents_apart_in_whatever_parts(name):
    sampler = Drawn(ends=0.15)
    batch = Drawn(ends=0.15).draw(4)
    assert len({int((row != IGNORE).sum()) for row in batch.targets}) > 1, "parts weigh unequally"
    wanted = None
    for micro_batch in (None, 3, 1):
        r = run(make=MODELS[name], sampler=sampler, micro_batch=micro_batch)
        if wanted is None:
            r.model.double()
            mean = mean_loss(r.model, batch)
            mean.backward()
            mean = mean.detach()
            wanted = {n: p.grad.clone() for n, p in r.model.named_parameters()}
            r.model.zero_grad()
        r.model.double()
        assert r.gradients(batch) == pytest.approx(mean.item(), rel=1e-6)
        for n, p in r.model.named_parameters():
            torch.testing.assert_close(p.grad, wanted[n], rtol=1e-4, atol=1e-7, msg=n)


def test_sequences_without_targets_count_for_nothing():
    whole, r = Drawn(ends=0).draw(4), run()
    half = Batch(
        tokens=whole.tokens,
        targets=np.where(np.arange(4)[:, None] < 2, whole.targets, IGNORE),
        documents=whole.documents,
        sources=whole.sources,
    )
    some = Batch(**{k: v[:2] for k, v in vars(whole).items()})
    assert r.gradients(half) == pytest.approx(r.gradients(some), rel=1e-6)
    nothing = Batch(**vars(whole) | {"targets": np.full_like(whole.targets, IGNORE)})
    assert r.gradients(nothing) == 0


ADDED = {"hybrid": 4, "zamba2": 4, "zamba": 4, "jamba": 8, "newer": len(NEWER)}  # to the stream
NO_DECAY = re.compile(
    r".*(norm\w*\.(weight|bias)|_layernorm\.weight|A_log|\bD|dt_bias|bias|dt_proj_bias|[BC]_bias"
    r"|ln_x\.\w+|g_norm\.\w+|x_(?!proj)\w+|[rk]_k|k_[ka]|lora\.2\.bias)"
)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_no_product_does_not_decay(name):
    model = MODELS[name]()
    found = decays(model)
    assert list(found) == [n for n, _ in model.named_parameters()]
    for parameter, decaying in found.items():
        assert decaying != bool(NO_DECAY.fullmatch(parameter)), parameter
    assert any(found.values()) and not all(found.values())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("name", MODELS)
def test_each_weight_has_one_optimizer_and_the_decay_of_its_kind(name, optimizer):
    r = run(make=MODELS[name], optimizer=optimizer, weight_decay=0.3)
    names = {p: n for n, p in r.model.named_parameters()}
    groups = [(o, g, p) for o in r.optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(names[p] for *_, p in groups) == sorted(names.values())
    decaying, kind = decays(r.model), kinds(r.model)
    for o, group, p in groups:
        assert group["weight_decay"] == (0.3 if decaying[names[p]] else 0), names[p]
        muon = optimizer == "muon" and kind[names[p]] == "matmul" and p.ndim == 2
        assert isinstance(o, torch.optim.Muon) == muon, names[p]
        if "embed" in names[p] or "head" in names[p]:
            assert not isinstance(o, torch.optim.Muon)


def test_a_step_of_no_rate_and_weight_decay_changes_what_it_should():
    r = run(weight_decay=0.5, clip=1e-30)  # no gradient is left
    before = {n: p.detach().clone() for n, p in r.model.named_parameters()}
    r.advance()
    for n, decaying in decays(r.model).items():
        p = r.model.get_parameter(n)
        shrunk = before[n] * (1 - 1e-2 * 0.5) if decaying else before[n]
        torch.testing.assert_close(p.detach(), shrunk, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_weights_start_as_their_papers_say(name):
    torch.manual_seed(0)
    plain = MODELS[name]()
    torch.manual_seed(0)
    r = Run(MODELS[name], Flat(1e4), Drawn(), Options(batch=4, seed=0))
    added = outputs(plain)
    assert len(added) == ADDED[name]
    for n, p in r.model.named_parameters():
        star = re.sub(r"(?<=experts)\.\d+", ".*", n)
        scale = len(added) ** -0.5 if star in added else 1
        torch.testing.assert_close(p.detach(), plain.get_parameter(n).detach() * scale)
        if n.endswith(("dt_bias", "dt_proj.bias", "dt_proj_bias")) and "mixer.d" not in n:
            dt = F.softplus(p.detach().double())
            assert dt.min() > 0.99e-3 and dt.max() < 0.101, n
            assert log(1e-3) < dt.log().mean() < log(0.1)
        if n.endswith("A_log"):
            assert p.detach().exp().min() >= 0.999 or "7" in n
        if n.endswith(".D"):
            assert (p == 1).all()
        if n.endswith("embed_tokens.weight"):
            assert p.detach().std() == pytest.approx(0.02, rel=0.1)


def test_depth_scaling_is_that_of_mamba_ssm():
    """mixer_seq_simple.py: kaiming_uniform_(a=sqrt(5)), 1 / sqrt(fan_in) at most, / sqrt(n)."""
    spec = tiny("mmmm", VOCAB, d_model=64)
    r = run(make=lambda: Residual(spec))
    weight = r.model.get_parameter("model.layers.1.mixer.out_proj.weight").detach()
    bound = weight.shape[1] ** -0.5 / 4**0.5
    assert 0.95 * bound < weight.abs().max() <= bound


class Sloped(Flat):
    def lr(self, t: float) -> float:
        return 1e-9 * t


def test_a_step_has_the_rate_of_its_middle():
    r = run()
    r.plan = Sloped(r.plan.tokens)
    rows = [r.advance() for _ in range(3)]
    size = 4 * Drawn.length
    assert [row["lr"] for row in rows] == pytest.approx([1e-9 * size * (i + 0.5) for i in range(3)])
    assert [row["tokens"] for row in rows] == [size, 2 * size, 3 * size]
    assert all(g["lr"] == rows[-1]["lr"] for o in r.optimizers for g in o.param_groups)


def test_gradients_are_clipped_to_the_norm_that_the_row_tells():
    r = run(clip=0.01)
    r.gradients(Drawn().draw(4))
    whole = torch.cat([p.grad.flatten() for p in r.model.parameters()]).norm()
    r.model.zero_grad()
    steps = []
    r.optimizers[0].step = lambda: steps.append(
        torch.cat([p.grad.flatten() for p in r.model.parameters()]).norm()
    )
    assert r.advance()["norm"] == pytest.approx(float(whole), rel=1e-5)
    assert float(steps[0]) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("name", ["hybrid", "zamba2", "newer"])
def test_every_model_learns_in_bf16_and_in_float32_alike(name, optimizer):
    exact, rough = (
        losses(run(6, make=MODELS[name], bf16=bf16, optimizer=optimizer)) for bf16 in (False, True)
    )
    assert exact != rough
    assert max(abs(a - b) for a, b in zip(exact, rough, strict=True)) < 0.1
    assert np.mean(exact[-2:]) < np.mean(exact[:2])


def test_scans_stay_exact_under_autocast():
    from cookbook_lib.blocks.ssd import ssd_chunked

    torch.manual_seed(0)
    x, B = torch.randn(1, 64, 2, 8), torch.randn(1, 64, 1, 4)
    dt, A = torch.rand(1, 64, 2), -torch.rand(2)
    arguments = (x, dt, A, B, B, torch.zeros(1, 2, 8, 4), 16)
    with torch.autocast("cpu", torch.bfloat16):
        under, _ = ssd_chunked(*arguments)
        rounded = torch.einsum("blhp, blhp -> blh", x, x)
    assert rounded.dtype == torch.bfloat16, "autocast was on"
    assert torch.equal(under, ssd_chunked(*arguments)[0])


def test_a_compiled_model_has_the_same_losses():
    """In a process of its own: what checks annotations here cannot be compiled."""
    script = """
from test_training_loop import VOCAB, D, Residual, losses, run, tiny
spec = tiny("-", VOCAB, d_model=D)
print(*(losses(run(3, make=lambda: Residual(spec), compile=on)) for on in (False, True)), sep=";")
"""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=here,
        env=os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parent}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    plain, compiled = map(json.loads, done.stdout.split(";"))
    assert len(plain) == 3 and compiled == pytest.approx(plain, rel=1e-4)


def test_a_loss_that_is_no_number_stops_before_the_weights_change():
    r = run()
    with torch.no_grad():
        r.model.get_parameter("model.layers.0.mixer.D").fill_(float("nan"))
    before = [p.detach().clone() for p in r.model.parameters()]
    with pytest.raises(ValueError, match="loss is nan, gradient norm nan at step 1"):
        r.advance()
    assert r.step == 0
    for p, was in zip(r.model.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), was, rtol=0, atol=0, equal_nan=True)


def test_settings_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="batch is 0"):
        run(batch=0)
    with pytest.raises(ValueError, match="optimizer is 'sgd', expected one of adamw, muon"):
        run(optimizer="sgd")
