"""BlackMamba is what its paper and its published code say, stated here token by token in float64.

arXiv:2402.01771. transformers has no class for it. The stream starts as the embedding; each layer
adds to it: x' = x + Mamba(RMSNorm(x)), then x'' = x' + MoE(RMSNorm(x')); the logits are the
embedding times LayerNorm(x). An expert is chosen by the largest logit of the router, bias included,
and its answer is multiplied by the sigmoid of that logit. Experts are gated MLPs; the file says
`swiglu`, the code gates with GELU.
"""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from cookbook_lib.blocks.checkpoint import load_checkpoint
from cookbook_lib.blocks.models import build

D, STATE, TAPS, INNER, RANK, FF, EXPERTS, VOCAB = 16, 4, 3, 32, 1, 20, 5, 37
CONFIG = {
    "num_layers": 4,
    "hidden_size": D,
    "state_size": STATE,
    "conv_dimension": TAPS,
    "vocab_size": VOCAB,
    "expansion_factor": 2,
    "mamba_moe_layers": ["r", str(EXPERTS), "r", str(EXPERTS)],
    "ffn_hidden_size": FF,
    "add_bias_linear": False,
    "swiglu": True,
    "max_sequence_length": 64,
}


def weights() -> dict[str, Tensor]:
    """A random checkpoint under the published names."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=random)

    w = {"embedding.word_embeddings.weight": draw(VOCAB, D)}
    for i in range(4):
        layer = f"decoder.layers.{i}"
        w[f"{layer}.norm.weight"] = 1 + draw(D, scale=0.3)
        mixer = f"{layer}.mixer"
        if i % 2 == 0:
            w[f"{mixer}.in_proj.weight"] = draw(2 * INNER, D, scale=0.3)
            w[f"{mixer}.conv1d.weight"] = draw(INNER, 1, TAPS, scale=0.5)
            w[f"{mixer}.conv1d.bias"] = draw(INNER, scale=0.3)
            w[f"{mixer}.x_proj.weight"] = draw(RANK + 2 * STATE, INNER, scale=0.3)
            w[f"{mixer}.dt_proj.weight"] = draw(INNER, RANK)
            w[f"{mixer}.dt_proj.bias"] = draw(INNER)
            w[f"{mixer}.A_log"] = draw(INNER, STATE)
            w[f"{mixer}.D"] = draw(INNER)
            w[f"{mixer}.out_proj.weight"] = draw(D, INNER, scale=0.3)
        else:
            w[f"{mixer}.router.weight"] = draw(EXPERTS, D)
            w[f"{mixer}.router.bias"] = draw(EXPERTS)
            for e in range(EXPERTS):
                expert = f"{mixer}.local_experts.{e}"
                w[f"{expert}.linear_fc1.weight"] = draw(2 * FF, D, scale=0.3)
                w[f"{expert}.linear_fc2.weight"] = draw(D, FF, scale=0.3)
    w["decoder.final_layernorm.weight"] = 1 + draw(D, scale=0.3)
    w["decoder.final_layernorm.bias"] = draw(D)
    return w


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def mamba(w: dict[str, Tensor], xs: Tensor) -> Tensor:
    """One sequence (l D) through the recurrence of arXiv:2312.00752, section 3.2."""
    held, window, ys = torch.zeros(INNER, STATE).double(), torch.zeros(TAPS, INNER).double(), []
    for x in xs:
        x, z = (w["in_proj.weight"] @ x).chunk(2)
        window = torch.cat([window[1:], x[None]])
        x = F.silu((window * w["conv1d.weight"][:, 0].T).sum(0) + w["conv1d.bias"])
        low, B, C = (w["x_proj.weight"] @ x).split([RANK, STATE, STATE])
        dt = F.softplus(w["dt_proj.weight"] @ low + w["dt_proj.bias"])
        decay = torch.exp(-dt[:, None] * w["A_log"].exp())
        held = decay * held + (dt * x)[:, None] * B
        ys.append(w["out_proj.weight"] @ ((held @ C + w["D"] * x) * F.silu(z)))
    return torch.stack(ys)


def moe(w: dict[str, Tensor], xs: Tensor) -> tuple[Tensor, list[int]]:
    """Each token to one expert, and which ones those were."""
    ys, chosen = [], []
    for x in xs:
        logits = w["router.weight"] @ x + w["router.bias"]
        e = int(logits.argmax())
        gate, up = (w[f"local_experts.{e}.linear_fc1.weight"] @ x).chunk(2)
        y = w[f"local_experts.{e}.linear_fc2.weight"] @ (F.gelu(gate) * up)
        ys.append(y * torch.sigmoid(logits[e]))
        chosen.append(e)
    return torch.stack(ys), chosen


def reference(w: dict[str, Tensor], tokens: Tensor) -> tuple[Tensor, set[int]]:
    """Logits of one sequence, and the experts that were used."""
    w = {k: t.double() for k, t in w.items()}
    table, used = w["embedding.word_embeddings.weight"], set()
    x = table[tokens]
    for i in range(4):
        layer = f"decoder.layers.{i}."
        own = {k.removeprefix(layer + "mixer."): t for k, t in w.items() if k.startswith(layer)}
        read = rms_norm(x, w[layer + "norm.weight"])
        if i % 2 == 0:
            y = mamba(own, read)
        else:
            y, chosen = moe(own, read)
            used |= set(chosen)
        x = x + y
    last = "decoder.final_layernorm."
    x = F.layer_norm(x, (D,), w[last + "weight"], w[last + "bias"], eps=1e-5)
    return x @ table.T, used


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blackmamba")
    save_file(weights(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@torch.no_grad()
def test_logits_are_those_of_the_definition(folder):
    tokens = torch.randint(VOCAB, (2, 21), generator=torch.Generator().manual_seed(1))
    model, w = load_checkpoint(folder, torch.float64), weights()
    answers = [reference(w, row) for row in tokens]
    want = torch.stack([logits for logits, _ in answers])
    assert set.union(*(used for _, used in answers)) == set(range(EXPERTS))
    torch.testing.assert_close(model(tokens), want, rtol=1e-10, atol=1e-10)
    cache = model.new_cache(2, 21)
    steps = [model(tokens[:, :9], cache), *(model(t[:, None], cache) for t in tokens[:, 9:].T)]
    torch.testing.assert_close(torch.cat(steps, 1), want, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_in_float32_too(folder):
    tokens = torch.randint(VOCAB, (1, 21), generator=torch.Generator().manual_seed(2))
    want, _ = reference(weights(), tokens[0])
    got = load_checkpoint(folder)(tokens)[0].double()
    assert ((got - want).abs().max() / want.abs().max()).item() < 1e-5


def test_a_bf16_model_has_its_stream_in_float32(folder):
    model = load_checkpoint(folder, torch.bfloat16)
    seen = []
    model.decoder.layers[2].norm.register_forward_pre_hook(lambda _, x: seen.append(x[0].dtype))
    model(torch.tensor([[1, 2, 3]]))
    assert seen == [torch.float32]


def test_training_balances_the_experts(folder):
    """While training, Sinkhorn chooses; in evaluation, the logits alone (section 3.2)."""
    model = load_checkpoint(folder)
    x = torch.randn(1, 40, D, generator=torch.Generator().manual_seed(3))
    layer = model.uses[1]["mixer"].module
    alone, _ = layer.eval().route(x[0])
    balanced, _ = layer.train().route(x[0])
    counts = [torch.bincount(e.flatten(), minlength=EXPERTS) for e in (alone, balanced)]
    assert counts[1].max() < counts[0].max()


def test_other_routing_is_refused():
    with pytest.raises(ValueError, match="routing_mode is 'top1', expected one of sinkhorn"):
        build(CONFIG | {"routing_mode": "top1"})
