"""RWKV-7 is one thing in three forms, stays finite, and is what its paper's equations say."""

import pytest
import torch
import torch.nn.functional as F

from cookbook_lib.blocks.rwkv7 import RWKV7, RWKV7ChannelMix
from cookbook_lib.blocks.wkv7 import rwkv7_chunked, rwkv7_recurrent
from cookbook_lib.calculators import specs

SPEC = specs.RWKV7(
    d_model=16, headdim=4, rank_w=3, rank_a=5, rank_v=2, rank_g=6, chunk_size=8, first=True
)
LATER = SPEC.but(first=False)


def draw(*shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


def tokens(l: int, b: int = 2, h: int = 2, n: int = 4, m: int = 3) -> list[torch.Tensor]:
    """r, w, k, v, kk, a and an initial state."""
    r, k, kk, w, a = draw(5, b, l, h, n)
    w, a = -0.607 * w.sigmoid(), a.sigmoid()
    return [r, w, k, draw(b, l, h, m), F.normalize(kk, dim=-1), a, draw(b, h, n, m)]


def build(spec: specs.RWKV7 = SPEC) -> RWKV7:
    torch.manual_seed(1)
    module = RWKV7(spec, depth=0.5)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return module.double().requires_grad_(False)


def empty(spec: specs.RWKV7 | specs.RWKV7ChannelMix, b: int) -> dict[str, torch.Tensor]:
    return {x.name: torch.zeros(x.shape, dtype=torch.float64) for x in spec.states(b)}


@pytest.mark.parametrize("l", [1, 7, 8, 23])
@pytest.mark.parametrize("chunk_size", [1, 4, 8, 64])
def test_chunks_are_the_recurrence(l, chunk_size):
    given = tokens(l)
    want, last = rwkv7_recurrent(*given)
    got, end = rwkv7_chunked(*given, chunk_size)
    assert error(got, want) < 1e-10
    assert error(end, last) < 1e-10


def test_the_recurrence_is_the_equation_of_the_paper():
    """S = S (diag(w) - kk' (a * kk)) + v' k with whole matrices; a row of S is a value channel."""
    r, w, k, v, kk, a, state = tokens(9, b=1, h=1)
    got, last = rwkv7_recurrent(r, w, k, v, kk, a, state)
    S, ys = state[0, 0].T, []
    for t in range(9):
        w_t, kk_t, a_t = (x[0, t, 0] for x in (w, kk, a))
        transition = torch.diag(w_t.exp()) - torch.outer(kk_t, a_t * kk_t)
        S = S @ transition + torch.outer(v[0, t, 0], k[0, t, 0])
        ys.append(S @ r[0, t, 0])
    assert error(got[0, :, 0], torch.stack(ys)) < 1e-10
    assert error(last[0, 0].T, S) < 1e-10


def time_mix(p: dict, x: torch.Tensor, n: int, first_values: torch.Tensor | None) -> torch.Tensor:
    """The layer as arXiv:2503.14456 writes it, one sequence, one token after the other."""
    d = x.shape[1]
    S, before, ys = torch.zeros(d // n, n, n, dtype=x.dtype), torch.zeros_like(x[0]), []

    def low_rank(name: str, x: torch.Tensor, middle=lambda x: x) -> torch.Tensor:
        y = p[f"{name}_lora.lora.2.weight"] @ middle(p[f"{name}_lora.lora.0.weight"] @ x)
        return y + p.get(f"{name}_lora.lora.2.bias", 0)

    for t, token in enumerate(x):
        mixed = {c: torch.lerp(token, before, p[f"x_{c}"].flatten()) for c in "rwkvag"}
        before = token
        r, k, v = (p[f"{c}_proj.weight"] @ mixed[c] for c in "rkv")
        w = torch.exp(-torch.exp(-F.softplus(-low_rank("w", mixed["w"], torch.tanh)) - 0.5))
        a = low_rank("a", mixed["a"]).sigmoid()
        if first_values is not None:
            v = torch.lerp(v, first_values[t], low_rank("v", mixed["v"]).sigmoid())
        kk = F.normalize((k * p["k_k"]).view(-1, n), dim=-1)
        k = k * torch.lerp(torch.ones_like(a), a, p["k_a"])
        r, w, k, v, a = (c.view(-1, n) for c in (r, w, k, v, a))
        removed = torch.einsum("hvk, hk, hj -> hvj", S, kk, a * kk)
        S = S * w[:, None] - removed + torch.einsum("hv, hk -> hvk", v, k)
        y = torch.einsum("hvk, hk -> hv", S, r)
        y = (y - y.mean(1, keepdim=True)) / (y.var(1, correction=0, keepdim=True) + n * 1e-5).sqrt()
        y = y.flatten() * p["g_norm.weight"] + p["g_norm.bias"]
        y = y + ((r * k * p["r_k"]).sum(1, keepdim=True) * v).flatten()
        ys.append(p["o_proj.weight"] @ (y * low_rank("g", mixed["g"], torch.sigmoid)))
    return torch.stack(ys)


@pytest.mark.parametrize("spec", [SPEC, LATER], ids=["first", "later"])
def test_the_layer_is_the_equations_of_the_paper(spec):
    module, x, values = build(spec), draw(2, 21, 16), draw(2, 21, 17)[..., :16]
    shared = {} if spec.first else {"values": values}
    got = module(x, shared=shared)
    p = dict(module.named_parameters())
    for row in range(2):
        want = time_mix(p, x[row], 4, None if spec.first else values[row])
        assert error(got[row], want) < 1e-10
    assert shared["values"].shape == x.shape


def test_the_channel_mix():
    spec = specs.RWKV7ChannelMix(d_model=6, d_ff=9)
    module, x = RWKV7ChannelMix(spec, depth=0.5).double().requires_grad_(False), draw(2, 7, 6)
    mixed = torch.lerp(x, F.pad(x, (0, 0, 1, -1)), module.x_k)
    want = F.relu(mixed @ module.key.weight.T) ** 2 @ module.value.weight.T
    assert error(module(x), want) < 1e-10
    state = empty(spec, 2)
    steps = [module(x[:, i : i + 1], state) for i in range(7)]
    assert error(torch.cat(steps, 1), want) < 1e-10
    packed = module(x, seq_idx=torch.tensor([[0, 0, 0, 1, 1, 1, 1]] * 2))
    apart = torch.cat([module(x[:, :3]), module(x[:, 3:])], 1)
    assert error(packed, apart) < 1e-10
    mask = torch.tensor([[False] * 3 + [True] * 4] * 2)
    assert error(module(x, mask=mask)[:, 3:], module(x[:, 3:])) < 1e-10


def test_gradients():
    spec = specs.RWKV7(d_model=4, headdim=2, rank_w=1, rank_a=1, rank_v=1, rank_g=1, chunk_size=2)
    module, x, values = build(spec).requires_grad_(), draw(1, 5, 4), draw(1, 5, 5)[..., :4]
    x, values = x.requires_grad_(), values.clone().requires_grad_()
    given = (x, values, *module.parameters())
    layer = lambda x, values, *_: module(x, shared={"values": values})  # noqa: E731
    assert torch.autograd.gradcheck(layer, given)


def test_bf16_is_stable_at_32k_tokens_with_the_fastest_decay():
    spec = SPEC.but(chunk_size=64)
    module = build(spec).bfloat16().requires_grad_()
    with torch.no_grad():  # half the channels forget as fast, half as slowly as they can
        module.w_lora.lora[2].bias.copy_(torch.tensor([30.0, -30.0] * 8))
    x = (3 * draw(1, 32768, 16)).bfloat16()
    y = module(x)
    y.float().square().mean().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="chunk_size is 128, expected at most 64"):
        SPEC.but(chunk_size=128)
    with pytest.raises(ValueError, match="d_inner is 16, expected a multiple of headdim"):
        SPEC.but(headdim=5)
    with pytest.raises(ValueError, match="shared has no 'values'"):
        build(LATER)(draw(1, 2, 16))
