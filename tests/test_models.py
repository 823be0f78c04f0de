"""Our models give the logits of transformers' from the checkpoints that it saves: whole sequences,
with a cache, padded, packed; and their parameters are those that the specs count."""

from dataclasses import replace
from functools import cache
from math import inf

import pytest
import torch
from tiny import CHECKPOINTS, one_thread, write  # noqa: F401 (a fixture)

from cookbook_lib.blocks.checkpoint import load_checkpoint
from cookbook_lib.blocks.models import Residual, build
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.calculators import presets
from cookbook_lib.calculators.configs import from_dict

LENGTH, PROMPT, PADDING = 13, 7, 4
STEPS_CLAMPED = ("zamba2 clamped", "mamba2 clamped")  # not by transformers' single step, by ours
ONE_OF_EACH = ("mistral", "mixtral", "jamba", "falcon_mamba", "mamba2 groups, tied", "zamba")
ONE_OF_EACH += ("zamba2 groups, rope, lora", "zamba2 biased, two blocks")
PADDING_SPEAKS = ("mamba biased", "zamba2 biased, two blocks")  # in transformers, through the bias


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Name of a checkpoint -> transformers' model and ours."""

    @cache
    def load(name: str):
        folder = tmp_path_factory.mktemp("model")
        return write(name, folder), load_checkpoint(folder)

    return load


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def draw(b: int = 2, l: int = LENGTH) -> torch.Tensor:
    return torch.randint(3, 61, (b, l), generator=torch.Generator().manual_seed(l))


def padding() -> torch.Tensor:
    """The first sequence is shorter, and filled up on its left."""
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    mask[0, :PADDING] = False
    return mask


def cached(model, tokens, cuts, mask=None):
    """Logits of all tokens, given in pieces to a model with a cache."""
    store, out = model.new_cache(len(tokens), tokens.shape[1]), []
    for i, j in zip((0, *cuts), (*cuts, tokens.shape[1]), strict=True):
        part = None if mask is None or mask[:, i:j].all() else mask[:, i:j]
        out.append(model(tokens[:, i:j], store, mask=part))
    assert store.length == tokens.shape[1]
    return torch.cat(out, 1)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_whole_sequence(name, pair):
    theirs, ours = pair(name)
    tokens = draw()
    want = theirs(tokens, use_cache=False).logits
    assert error(ours(tokens), want) < 1e-5
    last = ours(tokens, logits="last")
    assert last.shape[1] == 1 and error(last, ours(tokens)[:, -1:]) < 1e-6
    assert want.std() > 0.1  # weights that say something


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_with_a_cache(name, pair):
    theirs, ours = pair(name)
    tokens = draw()
    want = theirs(tokens, use_cache=False).logits
    every = range(1, LENGTH)
    assert error(cached(ours, tokens, every), want) < 1e-5  # token by token
    assert error(cached(ours, tokens, range(PROMPT, LENGTH)), want) < 1e-5  # prefill, then decode
    assert error(cached(ours, tokens, (3, 4, 9)), want) < 1e-5  # prefill in pieces


@pytest.mark.parametrize("name", [n for n in CHECKPOINTS if n not in STEPS_CLAMPED])
def test_transformers_with_its_cache(name, pair):
    theirs, ours = pair(name)
    tokens = draw()
    out = theirs(tokens[:, :PROMPT], use_cache=True)
    kind = "cache_params" if "cache_params" in out else "past_key_values"
    want = [out.logits]
    for i in range(PROMPT, LENGTH):
        out = theirs(tokens[:, i : i + 1], use_cache=True, **{kind: out[kind]})
        want.append(out.logits)
    got = cached(ours, tokens, range(PROMPT, LENGTH))
    assert error(got, torch.cat(want, 1)) < 1e-5


@pytest.mark.parametrize("name", [n for n in CHECKPOINTS if n not in PADDING_SPEAKS])
def test_left_padding(name, pair):
    theirs, ours = pair(name)
    tokens, mask = draw(), padding()
    want = theirs(tokens, attention_mask=mask.long(), use_cache=False).logits[mask]
    assert error(ours(tokens, mask=mask)[mask], want) < 1e-5
    assert error(cached(ours, tokens, range(PROMPT, LENGTH), mask)[mask], want) < 1e-5
    assert error(cached(ours, tokens, range(1, LENGTH), mask)[mask], want) < 1e-5


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_padding_contributes_nothing(name, pair):
    _, ours = pair(name)
    tokens = draw()
    alone = ours(tokens[:1, PADDING:])
    assert error(ours(tokens, mask=padding())[:1, PADDING:], alone) < 1e-5


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_packed_documents_do_not_see_each_other(name, pair):
    _, ours = pair(name)
    tokens = draw()
    seq_idx = torch.tensor([[0] * 5 + [1] * 8, [0] * 12 + [1]])
    for row, cut in enumerate((5, 12)):
        row = slice(row, row + 1)
        want = [ours(tokens[row, :cut]), ours(tokens[row, cut:])]
        got = ours(tokens[row], seq_idx=seq_idx[row])
        assert error(got, torch.cat(want, 1)) < 1e-5


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_cache_holds_the_bytes_that_the_spec_says(name, pair):
    _, ours = pair(name)
    assert ours.new_cache(3, 10).nbytes == ours.spec.state_bytes(b=3, s=10, dtype="fp32")
    half = ours.spec.state_bytes(b=3, s=10, dtype="bf16")
    assert build_like(ours).bfloat16().new_cache(3, 10).nbytes == half


def build_like(model):
    return type(model)(model.spec, model.options)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_bf16_runs_with_and_without_a_cache(name, pair):
    """Dtypes fit together in every form; the values are as near as bf16 lets them be."""
    _, exact = pair(name)
    ours = build_like(exact).eval()
    ours.load_state_dict(exact.state_dict())
    ours.bfloat16()
    tokens = draw()
    want = exact(tokens)
    for got in (ours(tokens), cached(ours, tokens, range(PROMPT, LENGTH))):
        assert got.isfinite().all()
        near = torch.nn.functional.cosine_similarity(got.float(), want, -1)
        assert near.median() > 0.99


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_parameter_gets_a_gradient(name, pair):
    _, ours = pair(name)
    with torch.enable_grad():
        model = build_like(ours)
        model(draw()).square().mean().backward()
    idle = [k for k, p in model.named_parameters() if p.grad is None]
    assert not idle


@pytest.mark.parametrize("name", ("qwen3", "jamba", "zamba", "zamba2 groups, rope, lora"))
def test_every_weight_matters(name, pair):
    """Else equal logits would prove little."""
    _, ours = pair(name)
    tokens = draw(2, 9)
    want, idle, random = ours(tokens), [], torch.Generator().manual_seed(0)
    for key, p in ours.named_parameters():
        kept = p.clone()
        p.add_(0.3 * torch.randn(p.shape, generator=random))
        if error(ours(tokens), want) < 1e-4:
            idle.append(key)
        p.copy_(kept)
    assert not idle


OPTIONS = (
    ("llama", {"rope": None}),
    ("llama", {"eps": 1e-3}),
    ("llama", {"activation": "gelu"}),
    ("llama tied, biased, llama3", {"rope": RoPE(theta=1e3)}),
    ("jamba", {"normalise": True}),
    ("falcon_mamba", {"plain_norms": False}),
    ("mamba2 clamped", {"dt_limit": (0.0, inf)}),
    ("zamba", {"scale": None}),
    ("zamba2 two blocks, rope", {"scale": None}),
    ("zamba2 two blocks, rope", {"rope": None}),
    ("zamba2 two blocks, rope", {"activation": "relu"}),
    ("zamba2 clamped", {"dt_limit": (0.0, inf)}),
)


@pytest.mark.parametrize("name, change", OPTIONS)
def test_every_option_matters(name, change, pair):
    _, ours = pair(name)
    other = type(ours)(ours.spec, replace(ours.options, **change))
    other.load_state_dict(ours.state_dict())
    assert error(other(draw()), ours(draw())) > 1e-4


RUNNABLE = [
    name
    for name in presets.names()
    if presets.preset(name).family
    in ("blackmamba", "jamba", "llama", "mamba", "mamba2", "mistral", "mixtral", "olmoe", "phi3")
    or presets.preset(name).family.startswith("zamba")
]


@pytest.mark.parametrize("name", RUNNABLE)
def test_published_models_have_the_parameters_of_their_specs(name):
    with torch.device("meta"):
        model = build(presets.entry(name)["config"])
    counted: dict[str, int] = {}
    for key, p in model.state_dict().items():
        before, local, after = key.partition("local_experts.")  # one name for each: BlackMamba
        if local:
            key = before + local + "*." + after.partition(".")[2]
        counted[key] = counted.get(key, 0) + p.numel()
    assert counted == model.spec.weights()
    assert sum(p.numel() for p in model.parameters()) == model.spec.params()


NEWER = ("deepseek-v3", "kimi-linear-48b-a3b", "lfm2-1.2b", "minimax-m1", "qwen3-next-80b-a3b")
NEWER += ("recurrentgemma-2b", "rwkv7-goose-world3-1.5b", "xlstm-7b")


@pytest.mark.parametrize("name", NEWER)
def test_a_model_that_is_only_counted_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match=r"^the config: \w+ models can be counted but not run"):
        build(presets.entry(name)["config"])


def test_says_what_is_wrong():
    llama = {"model_type": "llama", **CHECKPOINTS["llama"], "pad_token_id": None}
    with pytest.raises(ValueError, match="gemma2 models can be counted but not run"):
        build({"model_type": "gemma2"})
    mamba3 = {"d_model": 64, "n_layer": 1, "ssm_cfg": {"layer": "Mamba3"}}
    with pytest.raises(ValueError, match="Mamba3 models can be counted, not run"):
        build(mamba3)
    with pytest.raises(ValueError, match="the config: activation|activation is 'tanhh'"):
        build(llama | {"hidden_act": "tanhh"})
    with pytest.raises(ValueError, match="rms_norm_eps is 'small', expected a number"):
        build(llama | {"rms_norm_eps": "small"})
    with pytest.raises(ValueError, match="the config: scaling is 'stretchy'"):
        build(llama | {"rope_scaling": {"type": "stretchy"}})
    with pytest.raises(ValueError, match="layer 'a' is norm, attention, norm, norm, mlp, norm"):
        Residual(from_dict({"model_type": "gemma2"}, "gemma"))
    model = build(llama)
    with pytest.raises(ValueError, match="logits is 'first', expected one of all, last"):
        model(draw(), logits="first")
    with pytest.raises(ValueError, match="the cache has room for 12 tokens, expected 13"):
        model(draw(), model.new_cache(2, 12))
    with pytest.raises(ValueError, match="the cache is for 0 x 12 tokens"):
        model.new_cache(0, 12)
