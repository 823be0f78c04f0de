"""Any mixer in the common wiring is a language model: alike whole, with a cache, padded, packed."""

import pytest
import torch
from tiny import one_thread  # noqa: F401 (a fixture)

from cookbook_lib.blocks.models import Options, Residual
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Model

D, VOCAB, LENGTH, PADDING = 32, 29, 13, 4
NORM, MLP = specs.Norm(d_model=D), specs.MLP(d_model=D, d_ff=40)
DELTA = {"d_model": D, "n_k_heads": 2, "n_v_heads": 4, "head_k_dim": 8, "head_v_dim": 8}
RANKS = {f"rank_{name}": 4 for name in "wavg"}
MIXERS: dict[str, list[Block]] = {  # one block a layer
    "Mamba": [specs.Mamba1(d_model=D, d_state=4)] * 2,
    "Mamba-2": [specs.Mamba2(d_model=D, d_state=8, headdim=16, chunk_size=4)] * 2,
    "Mamba-3": [specs.Mamba3(d_model=D, d_state=8, headdim=16, chunk_size=4)] * 2,
    "DeltaNet": [specs.GatedDeltaNet(**DELTA, chunk_size=4)] * 2,
    "RWKV-7": [
        specs.RWKV7(d_model=D, headdim=8, chunk_size=4, first=True, **RANKS),
        specs.RWKV7ChannelMix(d_model=D, d_ff=48),
        specs.RWKV7(d_model=D, headdim=8, chunk_size=4, **RANKS),
        specs.RWKV7ChannelMix(d_model=D, d_ff=48),
    ],
    "hybrid": [
        specs.Mamba2(d_model=D, d_state=8, headdim=16, chunk_size=4),
        specs.MoE(d_model=D, d_ff=24, n_experts=4, topk=2),
        specs.Attention(d_model=D, n_heads=4, n_kv_heads=2, head_dim=8, window=5),
        MLP,
    ],
}


def compose(blocks: list[Block]) -> Residual:
    """A model whose layers are these blocks, each behind a norm."""
    layers = tuple(
        (chr(97 + i), (("layers.{i}.norm", NORM), ("layers.{i}.mixer", block)))
        for i, block in enumerate(blocks)
    )
    spec = Model(
        name="composed",
        family="composed",
        pattern="".join(letter for letter, _ in layers),
        before=(("embedding", specs.Embedding(vocab=VOCAB, d_model=D)),),
        layers=layers,
        after=(("norm", NORM), ("embedding", specs.Head(d_model=D, vocab=VOCAB))),
    )
    torch.manual_seed(0)
    model = Residual(spec, Options(rope=RoPE())).double().eval()
    for p in model.parameters():
        p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad(), torch.random.fork_rng():
        yield


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


def draw() -> torch.Tensor:
    return torch.randint(VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MIXERS)
def test_names_and_sizes_are_those_of_the_spec(name):
    model = compose(MIXERS[name])
    assert {k: p.numel() for k, p in model.state_dict().items()} == model.spec.weights()


@pytest.mark.parametrize("name", MIXERS)
def test_the_cache_changes_nothing(name):
    """States that the spec declares in float32 are rounded to it between the calls."""
    model, tokens = compose(MIXERS[name]), draw()
    want = model(tokens)
    for cuts in (range(1, LENGTH), (7, *range(8, LENGTH)), (3, 9)):
        cache, ends = model.new_cache(2, LENGTH), (*cuts, LENGTH)
        pieces = [tokens[:, i:j] for i, j in zip((0, *cuts), ends, strict=True)]
        assert error(torch.cat([model(x, cache) for x in pieces], 1), want) < 1e-6


@pytest.mark.parametrize("name", MIXERS)
def test_padding_changes_nothing(name):
    model, tokens = compose(MIXERS[name]), draw()
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    mask[0, :PADDING] = False
    got = model(tokens, mask=mask)
    assert error(got[:1, PADDING:], model(tokens[:1, PADDING:])) < 1e-10
    assert error(got[1:], model(tokens[1:])) < 1e-10


@pytest.mark.parametrize("name", MIXERS)
def test_packed_documents_do_not_see_each_other(name):
    model, tokens = compose(MIXERS[name]), draw()[:1]
    seq_idx = torch.tensor([[0] * 6 + [1] * 7])
    want = torch.cat([model(tokens[:, :6]), model(tokens[:, 6:])], 1)
    assert error(model(tokens, seq_idx=seq_idx), want) < 1e-10


def test_a_block_without_a_module_is_refused():
    with pytest.raises(ValueError, match="conv is a block that models cannot run"):
        compose([specs.ShortConv(d_model=D, d_conv=4)])
