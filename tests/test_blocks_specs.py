"""Each module has the weights that its spec says, by name, and runs the products of its rows."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from cookbook_lib.blocks.attention import Attention
from cookbook_lib.blocks.deltanet import GatedDeltaNet
from cookbook_lib.blocks.mamba1 import Mamba1
from cookbook_lib.blocks.mamba2 import Mamba2
from cookbook_lib.blocks.mamba3 import Mamba3
from cookbook_lib.blocks.mlp import MLP
from cookbook_lib.blocks.moe import MoE
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.blocks.rwkv7 import RWKV7, RWKV7ChannelMix
from cookbook_lib.calculators import specs

GQA = specs.Attention(d_model=64, n_heads=4, n_kv_heads=2, head_dim=16)
DELTA = specs.GatedDeltaNet(
    d_model=64, n_k_heads=2, n_v_heads=2, head_k_dim=16, head_v_dim=24, chunk_size=8
)
TIME = specs.RWKV7(
    d_model=64, headdim=16, rank_w=8, rank_a=9, rank_v=10, rank_g=11, chunk_size=8, first=True
)
MAMBA1 = specs.Mamba1(d_model=64)
HEADS = {f"{x}_proj.{y}": f"{x}_proj_{y}" for x, y in (("x", "weight"), ("dt", "weight"))}
MAMBA2 = specs.Mamba2(d_model=64, d_state=24, headdim=16, chunk_size=8)
MAMBA3 = specs.Mamba3(d_model=64, d_state=24, headdim=16, chunk_size=8)
BLOCKS = {
    "gqa": (GQA, Attention),
    "wide mha": (GQA.but(d_in=128, n_kv_heads=4), Attention),
    "window": (GQA.but(window=8, qkv_bias=True, out_bias=True), Attention),
    "fused": (GQA.but(fused=True, qk_norm="head", names=(("o_proj", "dense"),)), Attention),
    "norm of all": (GQA.but(qk_norm="all", d_in=32), Attention),
    "convolution": (GQA.but(d_conv=4, fused=True, names=(("qkv_proj", "in_proj"),)), Attention),
    "mlp": (specs.MLP(d_model=64, d_ff=96), MLP),
    "fused mlp": (specs.MLP(d_model=64, d_ff=96, fused=True, bias=True), MLP),
    "plain mlp": (
        specs.MLP(d_model=64, d_ff=96, gated=False, names=(("up_proj", "c_fc"),)),
        MLP,
    ),
    "mamba1": (MAMBA1, Mamba1),
    "biased mamba1": (MAMBA1.but(bias=True, out_bias=False, conv_bias=False), Mamba1),
    "mamba1 with norms": (MAMBA1.but(dt_norm=True, dt_rank=9), Mamba1),
    "mamba1 of several heads": (
        MAMBA1.but(nheads=2, names=(*HEADS.items(), ("dt_proj.bias", "dt_proj_bias"))),
        Mamba1,
    ),
    "mamba1 of several heads, unnamed": (MAMBA1.but(nheads=2, d_ssm=48), Mamba1),
    "mamba2": (MAMBA2, Mamba2),
    "grouped mamba2": (MAMBA2.but(ngroups=4, bias=True, d_ssm=192), Mamba2),
    "mamba2 without norm": (MAMBA2.but(norm=False, out_bias=True, conv_bias=False), Mamba2),
    "mamba3": (MAMBA3, Mamba3),
    "grouped mamba3": (MAMBA3.but(ngroups=2, rope_fraction=1.0, norm=True), Mamba3),
    "deltanet": (DELTA, GatedDeltaNet),
    "grouped deltanet": (DELTA.but(n_v_heads=6), GatedDeltaNet),
    "rwkv7": (TIME, RWKV7),
    "later rwkv7": (TIME.but(first=False), RWKV7),
    "channel mix": (specs.RWKV7ChannelMix(d_model=64, d_ff=96), RWKV7ChannelMix),
}


def solve_flops(system: torch.Size, values: torch.Size, *_, **__) -> int:
    """As a product with the inverse: torch's table has no triangular solve."""
    return 2 * values.numel() * system[-1]


class Products(TorchDispatchMode):
    """FLOPs of every matmul, convolution and triangular solve that torch runs."""

    def __init__(self):
        super().__init__()
        self.flops: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.flops.append(count(*args, **(kwargs or {}), out_val=out))
        if func.overloadpacket == torch.ops.aten.linalg_solve_triangular:
            self.flops.append(solve_flops(args[0].shape, args[1].shape))
        return out


SSD = ("scores", "within", "chunk_state", "between")
ONE_BY_ONE = {  # what each module runs for one chunk after the other, and how long its chunks are
    Mamba1: (("read",), 64),
    Mamba2: (SSD, MAMBA2.chunk_size),
    Mamba3: (SSD, MAMBA3.chunk_size),
    GatedDeltaNet: (("held", "chunk_state"), DELTA.chunk_size),
    RWKV7: (("held", "chunk_state"), TIME.chunk_size),
}


def products(spec, module: type | None = None, **run) -> list[int]:
    """FLOPs of the rows that are products, as often as the module runs each."""
    flops, (some, size) = [], ONE_BY_ONE.get(module, ((), 1))
    for row in spec.costs(**run):
        times = max(1, run["l"] // size) if row.op in some else 1
        flops += [row.flops // times] * times * (row.kind in ("matmul", "conv", "solve"))
    return sorted(flops)


@pytest.fixture(params=BLOCKS)
def pair(request):
    spec, module = BLOCKS[request.param]
    with torch.device("meta"):  # shapes without data
        return spec, module(spec)


def inputs(spec, l: int) -> tuple[torch.Tensor, dict]:
    """Two sequences of l tokens, and what else the block is given."""
    width = getattr(spec, "d_x", spec.d_model)
    later = isinstance(spec, specs.RWKV7) and not spec.first
    values = {"values": torch.empty(2, l, spec.d_model, device="meta")}
    return torch.empty(2, l, width, device="meta"), {"shared": values} if later else {}


def test_weights(pair):
    spec, module = pair
    assert spec.weights() == {name: p.numel() for name, p in module.named_parameters()}


def test_products_of_many_tokens(pair):
    spec, module = pair
    x, given = inputs(spec, 32)
    with Products() as ran, sdpa_kernel(SDPBackend.MATH):
        module(x, **given)
    assert sorted(ran.flops) == products(spec, type(module), b=2, l=32)


def test_products_of_one_token(pair):
    """With a state, where the block keeps one."""
    spec, module = pair
    x, given = inputs(spec, 1)
    if states := spec.states(2, 8, "fp32"):
        given["state"] = {s.name: torch.empty(s.shape, device="meta") for s in states}
    if isinstance(module, Attention):
        given["start"] = 7
    with Products() as ran, sdpa_kernel(SDPBackend.MATH):
        module(x, **given)
    assert sorted(ran.flops) == products(spec, type(module), b=2, l=1, s=8)


def test_rope_adds_no_weight_and_no_product():
    with torch.device("meta"):
        module, x = Attention(GQA, rope=RoPE()), torch.empty(2, 32, 64)
    with Products() as ran, sdpa_kernel(SDPBackend.MATH):
        module(x)
    assert sorted(ran.flops) == products(GQA, b=2, l=32)
    assert GQA.weights() == {name: p.numel() for name, p in module.named_parameters()}


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("router_bias", [False, True])
@pytest.mark.parametrize("topk", [1, 3])
def test_moe(gated, router_bias, topk):
    """Who goes where is data, so this one runs; experts together cost what the rows say."""
    options = {"gated": gated, "router_bias": router_bias, "names": (("router", "gate"),)}
    spec = specs.MoE(d_model=16, d_ff=24, n_experts=4, topk=topk, **options)
    module = MoE(spec)
    assert spec.weights() == {name: p.numel() for name, p in module.named_parameters()}
    with Products() as ran:
        module(torch.randn(2, 9, 16))
    rows = {row.op: row.flops for row in spec.costs(b=2, l=9)}
    experts = sum(flops for op, flops in rows.items() if op.startswith("experts."))
    assert rows["gate.weight"] in ran.flops
    assert sum(ran.flops) == rows["gate.weight"] + experts


def test_separate_experts_are_the_stacked_ones():
    names = {"gate_up_proj": "linear_fc1", "down_proj": "linear_fc2"}
    names = tuple((f"experts.{k}", f"local_experts.*.{v}.weight") for k, v in names.items())
    spec = specs.MoE(d_model=16, d_ff=24, n_experts=4, topk=1, router_bias=True, names=names)
    with torch.device("meta"):
        sizes = {name: p.numel() for name, p in MoE(spec).named_parameters()}
    for name, size in spec.weights().items():
        each = [n for k, n in sizes.items() if k.replace(".*.", ".") == name.replace("*.", "")]
        each = each or [sizes[name.replace("*", str(i))] for i in range(4)]
        assert sum(each) == size
    assert sum(sizes.values()) == spec.params()
