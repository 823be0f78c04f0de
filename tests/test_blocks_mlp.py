"""MLP and MoE are transformers'; top-1 routing is BlackMamba's; Sinkhorn balances as measured."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig
from transformers.activations import ACT2FN
from transformers.models.granitemoehybrid import modeling_granitemoehybrid as granite
from transformers.models.jamba import modeling_jamba as jamba
from transformers.models.llama import modeling_llama as llama
from transformers.models.mixtral import modeling_mixtral as mixtral
from transformers.models.olmoe import modeling_olmoe as olmoe
from transformers.models.zamba2 import modeling_zamba2 as zamba2

from cookbook_lib.blocks.mlp import ACTIVATIONS, MLP
from cookbook_lib.blocks.moe import MoE, mix, route
from cookbook_lib.blocks.sinkhorn import STARTS, drawn_logits, load, sinkhorn, trial
from cookbook_lib.calculators import specs

SMALL = specs.MoE(d_model=16, d_ff=24, n_experts=4, topk=2)


def draw(*shape: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_transformers(name):
    x = draw(1000)
    torch.testing.assert_close(ACTIVATIONS[name](x), ACT2FN[name](x))


@pytest.mark.parametrize("bias", [False, True])
def test_mlp_is_that_of_llama(bias):
    config = AutoConfig.for_model(
        "llama", hidden_size=16, intermediate_size=24, num_attention_heads=4, mlp_bias=bias
    )
    theirs, x = llama.LlamaMLP(config), draw(2, 5, 16)
    ours = MLP(specs.MLP(d_model=16, d_ff=24, bias=bias))
    ours.load_state_dict(theirs.state_dict())
    assert error(ours(x), theirs(x)) < 1e-5


def test_mlp_is_that_of_zamba2():
    """Fused, and with a LoRA of its own for each use."""
    config = AutoConfig.for_model(
        "zamba2",
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=4,
        num_hidden_layers=3,
        layers_block_type=["hybrid"] * 3,
        adapter_rank=4,
    )
    theirs, x = zamba2.Zamba2MLP(config, num_fwd_mem_blocks=3, block_id=0), draw(2, 5, 16)
    ours = MLP(specs.MLP(d_model=16, d_ff=24, fused=True), activation="gelu")
    ours.load_state_dict({k: t for k, t in theirs.state_dict().items() if "adapter" not in k})
    for use in range(3):
        adapter = theirs.gate_up_proj_adapter_list[use]
        assert error(ours(x, adapter), theirs(x, layer_idx=use)) < 1e-5


def test_the_gate_may_come_second():
    spec = specs.MLP(d_model=16, d_ff=24, fused=True)
    first, second, x = MLP(spec), MLP(spec, gate_first=False), draw(2, 5, 16)
    weights = first.state_dict()
    up = weights["gate_up_proj.weight"]
    second.load_state_dict(weights | {"gate_up_proj.weight": up.roll(24, 0)})
    assert error(second(x), first(x)) < 1e-6


def test_mlp_without_a_gate():
    spec = specs.MLP(d_model=16, d_ff=24, gated=False, names=(("up_proj", "c_fc"),))
    ours, x = MLP(spec, activation="relu2"), draw(2, 5, 16)
    assert error(ours(x), ours.down_proj(F.relu(ours.c_fc(x)) ** 2)) < 1e-6


MOE = {
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "hidden_size": 16,
    "intermediate_size": 24,
}
THEIRS = {
    "mixtral": (mixtral.MixtralSparseMoeBlock, {}, "gate", True),
    "jamba": (jamba.JambaSparseMoeBlock, {}, "router", False),
    "olmoe": (olmoe.OlmoeSparseMoeBlock, {}, "gate", False),
    "olmoe normed": (olmoe.OlmoeSparseMoeBlock, {"norm_topk_prob": True}, "gate", True),
    "granitemoehybrid": (granite.GraniteMoeHybridMoE, {"mamba_n_heads": 4}, "router", True),
}


@pytest.mark.parametrize("name", THEIRS)
def test_moe_is_that_of_transformers(name):
    kind, fields, router, normalise = THEIRS[name]
    theirs = kind(AutoConfig.for_model(name.split()[0], **MOE | fields))
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.3)
    ours = MoE(SMALL.but(names=(("router", router),)), normalise=normalise)
    ours.load_state_dict(theirs.state_dict())
    x = draw(3, 7, 16)
    assert error(ours(x), theirs(x)) < 1e-5


@pytest.mark.parametrize("names", [(), "each"])
@pytest.mark.parametrize("gated", [False, True])
def test_moe_is_each_token_on_its_own(names, gated):
    """The definition: a loop over tokens and their experts; and experts may be kept one by one."""
    if names == "each":
        weights = {"gate_up_proj": "fc1", "up_proj": "fc1", "down_proj": "fc2"}
        names = tuple((f"experts.{k}", f"local.*.{v}.weight") for k, v in weights.items())
    spec = SMALL.but(gated=gated, names=names)
    module, x = MoE(spec).double(), draw(3, 7, 16, dtype=torch.float64)
    experts, weights = module.route(x.flatten(0, 1))
    up = "gate_up_proj" if gated else "up_proj"

    def expert(i: int, token: torch.Tensor) -> torch.Tensor:
        if names:
            fc1, fc2 = module.local[i].fc1.weight, module.local[i].fc2.weight
        else:
            fc1, fc2 = getattr(module.experts, up)[i], module.experts.down_proj[i]
        wide = fc1 @ token
        return fc2 @ (F.silu(wide[:24]) * wide[24:] if gated else F.silu(wide))

    want = torch.stack(
        [
            sum(w * expert(e, token) for e, w in zip(es, ws, strict=True))
            for token, es, ws in zip(x.flatten(0, 1), experts.tolist(), weights, strict=True)
        ]
    )
    assert error(module(x).flatten(0, 1), want) < 1e-10


def test_every_expert_may_read_a_narrower_input():
    module, x = MoE(SMALL.but(d_latent=8)), draw(2, 5, 16)
    y = module(x, latent=x[..., :8])
    assert y.shape == (2, 5, 8)
    assert not torch.equal(y, module(x.flip(-1), latent=x[..., :8]))


def test_top_1_is_routed_as_blackmamba_does():
    """arXiv:2402.01771: argmax of biased logits; the gate is the chosen one's sigmoid."""
    spec = SMALL.but(topk=1, router_bias=True)
    module, x = MoE(spec, gate="sigmoid", normalise=False, balance="sinkhorn").eval(), draw(9, 16)
    torch.nn.init.normal_(module.router.bias)
    logits = x @ module.router.weight.T + module.router.bias
    experts, weights = module.route(x)
    assert torch.equal(experts[:, 0], logits.argmax(1))
    assert error(weights, logits.max(1, keepdim=True).values.sigmoid()) < 1e-6
    chosen, weights = module.train().route(x)  # Sinkhorn chooses, the gate stays
    assert torch.equal(chosen[:, 0], sinkhorn(logits).log_plan.argmax(1))
    assert error(weights, logits.gather(1, chosen).sigmoid()) < 1e-6


def test_gradients():
    spec = specs.MoE(d_model=4, d_ff=3, n_experts=3, topk=2, router_bias=True)
    module, x = MoE(spec).double(), draw(1, 5, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *module.parameters()))
    mlp = MLP(specs.MLP(d_model=4, d_ff=3)).double()
    assert torch.autograd.gradcheck(lambda x, *_: mlp(x), (x, *mlp.parameters()))


def test_an_expert_without_tokens_runs_nothing():
    def never(x):
        raise AssertionError("this expert was not chosen")

    x, ones = draw(4, 2), torch.ones(4, 1)
    y = mix(x, torch.tensor([[0], [2], [0], [2]]), ones, [lambda x: x, never, lambda x: -x])
    assert y.equal(x * torch.tensor([[1], [-1], [1], [-1]]))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("spread", [0.02, 1.0, 3.0])
def test_sinkhorn_balances_rows_and_columns(start, spread):
    logits = drawn_logits(spread, bias=1.0, seed=0).double()
    found = sinkhorn(logits, start, tolerance=1e-12, iterations=1000)
    plan = found.log_plan.exp()
    assert found.iterations < 1000
    torch.testing.assert_close(plan.sum(1), torch.full((2048,), 1 / 2048).double())
    torch.testing.assert_close(plan.sum(0), torch.full((8,), 1 / 8).double())


def test_sinkhorn_top_1_is_a_bias_for_each_expert():
    logits = drawn_logits(1.0, bias=1.0, seed=0).double()
    found = sinkhorn(logits, sharpness=2.0)
    biased = logits + found.log_columns / 2.0
    assert torch.equal(found.log_plan.argmax(1), biased.argmax(1))


def test_the_absolute_tolerance_stops_after_one_iteration():
    """That one iteration is enough is said by the stopping rule: a scale-free one differs."""
    case = {"spread": 1.0, "bias": 1.0, "sharpness": 2.0}
    assert trial("balanced", **case, relative=False)[0] == 1
    assert 5 < trial("balanced", **case)[0] < trial("ones", **case)[0]
    assert trial("balanced", spread=0.02, bias=0.0, sharpness=1.0)[0] == 1


@pytest.mark.parametrize("spread, sharpness", [(1.0, 1.0), (1.0, 2.0), (3.0, 1.0), (3.0, 2.0)])
def test_one_iteration_from_the_balanced_start_does_what_three_do_from_ones(spread, sharpness):
    case = {"spread": spread, "bias": 1.0, "sharpness": sharpness, "tolerance": 0.0}
    one = {start: trial(start, **case, iterations=1)[1] for start in STARTS}
    assert one["balanced"] < one["ones"] < one["unreciprocal"]
    assert one["balanced"] < 1.05 * trial("ones", **case, iterations=3)[1]
    argmax = [load(drawn_logits(spread, 1.0, s).argmax(1), 8).max().item() for s in range(10)]
    assert one["balanced"] < sum(argmax) / 10


def test_huge_logits_neither_overflow_nor_unbalance():
    found = sinkhorn(100 * drawn_logits(1.0, 1.0, 0))
    assert found.log_plan.isfinite().all()
    with torch.no_grad():
        _, weights = route(torch.tensor([[1e4, -1e4]]), 1)
    assert weights.item() == 1


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="activation is 'tanhh'"):
        MLP(specs.MLP(d_model=4, d_ff=4), activation="tanhh")
    with pytest.raises(ValueError, match="gate is 'soft'"):
        MoE(SMALL, gate="soft")
    with pytest.raises(ValueError, match="balance is 'yes'"):
        MoE(SMALL, balance="yes")
    with pytest.raises(ValueError, match="start is 'zeros'"):
        sinkhorn(draw(4, 2), start="zeros")
    with pytest.raises(ValueError, match="iterations is 0"):
        sinkhorn(draw(4, 2), iterations=0)
    with pytest.raises(ValueError, match="adapter is given"):
        MLP(specs.MLP(d_model=4, d_ff=4))(draw(2, 4), torch.nn.Linear(4, 8))
