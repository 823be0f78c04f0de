"""Speculative decoding chooses what the large model alone would: the same tokens where it takes the
likeliest, the same distribution where it draws."""

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import one_thread  # noqa: F401 (a fixture)

from cookbook_lib.blocks.models import Options, Residual
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.decoding.generation import generate
from cookbook_lib.decoding.sampling import Sampling, probabilities
from cookbook_lib.decoding.speculative import Counts, speculate, verify
from cookbook_lib.training.tiny import tiny

VOCAB, GREEDY = 6, Sampling(temperature=0.0)


def model(pattern: str, seed: int, width: int = 32):
    torch.manual_seed(seed)
    made = Residual(tiny(pattern, VOCAB, width, 8), Options(rope=RoPE()))
    for name, p in made.named_parameters():
        if p.ndim == 2 and "conv" not in name:
            p.data.mul_(2.5)  # so that tokens matter to what comes next
    return made.eval().requires_grad_(False)  # in float32, as the spec's states are


LARGE = {pattern: model(pattern, 0) for pattern in ("m-a-", "a-a-", "mm")}
SMALL = {"hybrid": model("ma", 1), "attention": model("a", 2), "SSM": model("m", 3)}
PROMPT = torch.tensor([[1, 4, 2, 0, 3]])


def plain(large, prompt, n, how=GREEDY, seed=0) -> list[int]:
    return [t.item() for t in generate(large, prompt, n, how, seed=seed)]


@pytest.mark.parametrize("small", [*SMALL, "itself"])
@pytest.mark.parametrize("large", LARGE)
@pytest.mark.parametrize("k", (1, 4))
def test_the_likeliest_tokens_are_those_of_the_large_model(large, small, k):
    for prompt in (PROMPT, PROMPT[:, :1]):
        counts = Counts()
        draft = LARGE[large] if small == "itself" else SMALL[small]
        got = list(speculate(LARGE[large], draft, prompt, 25, GREEDY, k=k, counts=counts))
        assert got == plain(LARGE[large], prompt, 25)
        rounds = counts.proposed // k  # each gives what was accepted and one token more
        assert 25 <= counts.accepted + rounds < 25 + k + 1 and rounds <= counts.passes
        if small == "itself":
            assert counts.acceptance == 1.0 and counts.again == 0
        if set(large) <= set("a-") and small == "attention":
            assert counts.snapshot_bytes == counts.again == 0  # a length was enough
        elif counts.acceptance < 1 and "m" in large:
            assert counts.snapshot_bytes > 0 and counts.again > 0


shares = st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any)


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(shares, shares)
def test_one_proposal_is_replaced_so_that_the_distribution_is_that_of_the_large_model(p, q):
    """Exactly, by what `verify` does with each proposal and each chance of a fine grid."""
    p, q = (torch.tensor([x], dtype=torch.float64) / sum(x) for x in (p, q))
    kept = torch.minimum(p, q)[0]
    rest = (p - q).clamp(min=0)[0]
    if (lost := 1 - kept.sum()) > 0:
        kept = kept + lost * rest / rest.sum()
    assert torch.allclose(kept, p[0])  # the theorem
    random, n = torch.Generator().manual_seed(0), 1500
    seen = torch.zeros(3)
    for x in torch.multinomial(q[0], n, replacement=True, generator=random).tolist():
        seen[verify(torch.cat([p, p]), q, [x], random)[0]] += 1
    some = p[0] > 0  # chi-squared of 2 degrees of freedom: above 18.4 once in 10,000
    assert (seen[~some] == 0).all()
    expected = n * p[0][some]
    assert ((seen[some] - expected) ** 2 / expected).sum() < 18.4


@pytest.mark.parametrize("small", ("hybrid", "attention"))
def test_draws_have_the_distribution_of_the_large_model(small):
    """Of the first two tokens after a prompt, over 400 runs, against all pairs' probabilities."""
    how, large, n = Sampling(temperature=1.5, top_k=3), LARGE["m-a-"], 400
    first = probabilities(large(PROMPT)[:, -1], how)[0]
    pairs = torch.zeros(VOCAB, VOCAB)
    for x in range(VOCAB):
        longer = torch.cat([PROMPT, torch.tensor([[x]])], 1)
        pairs[x] = first[x] * probabilities(large(longer)[:, -1], how)[0]
    seen, refused = torch.zeros(VOCAB, VOCAB), 0
    for seed in range(n):
        counts = Counts()
        x, y = speculate(large, SMALL[small], PROMPT, 2, how, k=2, seed=seed, counts=counts)
        seen[x, y] += 1
        refused += counts.acceptance < 1
    assert refused > n / 10  # otherwise little was proved
    some = pairs > 0
    assert some.sum() == 9 and (seen[~some] == 0).all()
    expected = n * pairs[some]
    assert ((seen[some] - expected) ** 2 / expected).sum() < 31.8  # 8 degrees: once in 10,000


def test_bytes_of_going_back_are_those_of_the_states():
    large, counts = LARGE["m-a-"], Counts()
    list(speculate(large, SMALL["attention"], PROMPT, 20, GREEDY, k=3, counts=counts))
    states = {s.name: s for s in large.spec.states(dtype="fp32") if s.kind != "kv"}
    rounds = counts.proposed // 3
    assert counts.snapshot_bytes == rounds * sum(4 * prod(s.shape) for s in states.values())


def test_says_what_is_wrong():
    large = LARGE["mm"]
    with pytest.raises(ValueError, match="k is 0 and max_tokens 5, expected both at least 1"):
        next(speculate(large, large, PROMPT, 5, k=0))
    with pytest.raises(ValueError, match=r"the prompt is \(1, 0\), expected one of at least one"):
        next(speculate(large, large, PROMPT[:, :0], 5))
