"""Top-k, top-p and min-p leave out what transformers' leave out, and the rest is drawn as often as
its probabilities say."""

import pytest
import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from cookbook_lib.decoding.sampling import (
    Sampling,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    sample,
)


def draw(b: int = 64, v: int = 50, spread: float = 2.0) -> torch.Tensor:
    return spread * torch.randn(b, v, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("k", [1, 3, 50, 80])
def test_top_k_is_that_of_transformers(k):
    assert torch.equal(keep_top_k(draw(), k), TopKLogitsWarper(k)(None, draw()))


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999])
def test_top_p_is_that_of_transformers(p):
    assert torch.equal(keep_top_p(draw(), p), TopPLogitsWarper(p)(None, draw()))


@pytest.mark.parametrize("p", [0.001, 0.05, 0.5, 1.0])
def test_min_p_is_that_of_transformers(p):
    assert torch.equal(keep_min_p(draw(), p), MinPLogitsWarper(p)(None, draw()))


def test_top_p_by_hand():
    """0.5 + 0.3 is what 0.8 needs; a little more needs the third too."""
    logits = torch.tensor([[0.05, 0.5, 0.15, 0.3]]).log()
    for p, kept in ((0.5, [1]), (0.51, [1, 3]), (0.79, [1, 3]), (0.81, [1, 2, 3]), (1e-9, [1])):
        assert keep_top_p(logits, p).isfinite()[0].nonzero()[:, 0].tolist() == kept


HOW = {
    "plain": Sampling(),
    "cold": Sampling(temperature=0.5),
    "hot, top-k": Sampling(temperature=1.5, top_k=4),
    "top-p": Sampling(top_p=0.8),
    "min-p": Sampling(temperature=0.7, min_p=0.1),
    "all": Sampling(temperature=1.2, top_k=6, top_p=0.9, min_p=0.02),
}


@pytest.mark.parametrize("name", HOW)
def test_draws_come_as_often_as_they_should(name):
    how, logits, n = HOW[name], draw(1, 8, 1.0), 20_000
    left = logits / how.temperature
    if how.top_k:
        left = TopKLogitsWarper(how.top_k)(None, left)
    left = MinPLogitsWarper(how.min_p)(None, TopPLogitsWarper(how.top_p)(None, left))
    want = left.softmax(-1)[0]
    random = torch.Generator().manual_seed(1)
    got = torch.bincount(sample(logits.expand(n, -1), how, random), minlength=8) / n
    assert (got[want == 0] == 0).all()
    assert ((got - want).abs() < 4 * (want * (1 - want) / n).sqrt() + 1e-9).all()


def test_temperature_0_takes_the_likeliest():
    assert torch.equal(sample(draw(), Sampling(temperature=0.0)), draw().argmax(-1))


def test_a_seed_says_it_all():
    one, two, other = (
        sample(draw(), Sampling(), torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)


@pytest.mark.parametrize(
    "field, value",
    [("temperature", -1.0), ("temperature", float("nan")), ("top_k", -1), ("top_p", 0.0)]
    + [("top_p", 1.1), ("min_p", -0.1), ("min_p", 2.0)],
)
def test_says_what_is_wrong(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}, expected"):
        Sampling(**{field: value})
