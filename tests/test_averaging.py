"""The average of checkpoints is their mean, however many there are and whatever their dtype."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cookbook_lib.training.averaging import Average

STEADY = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def states(count, dtype=torch.float32, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [
        {
            "weight": torch.randn(5, 3, generator=random, dtype=torch.float64).to(dtype),
            "bias": torch.randn(3, generator=random, dtype=torch.float64).to(dtype),
            "steps": torch.tensor(i),
        }
        for i in range(count)
    ]


def average(checkpoints):
    made = Average()
    for state in checkpoints:
        made.add(state)
    return made.state_dict()


@STEADY
@given(
    st.integers(1, 30),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    st.integers(0, 9),
)
def test_it_is_the_mean_in_float64_rounded_once(count, dtype, seed):
    checkpoints = states(count, dtype, seed)
    found = average(checkpoints)
    for name in ("weight", "bias"):
        mean = torch.stack([s[name].double() for s in checkpoints]).mean(0)
        assert found[name].dtype == dtype
        bound = torch.finfo(torch.float32 if dtype != torch.float64 else dtype).eps * 30
        if dtype == torch.bfloat16:
            bound = torch.finfo(dtype).eps  # of the result; the sum is not rounded
        assert torch.allclose(found[name].double(), mean, rtol=bound, atol=bound)
    assert found["steps"] == count - 1


def test_a_sum_in_bf16_would_be_worse():
    """256 + 1 is 256 in bf16: a running sum in the weights' dtype loses every small part."""
    checkpoints = [{"w": torch.tensor([x], dtype=torch.bfloat16)} for x in (256.0, *[1.0] * 255)]
    naive = checkpoints[0]["w"].clone()
    for state in checkpoints[1:]:
        naive += state["w"]
    right = average(checkpoints)["w"].item()
    assert right == pytest.approx(511 / 256, rel=0.004) and naive.item() / 256 == 1.0


def test_checkpoints_may_change_after_they_were_added():
    state = states(1)[0]
    made = Average()
    made.add(state)
    before = state["weight"].clone()
    state["weight"].zero_()
    assert torch.equal(made.state_dict()["weight"], before)


def test_the_average_of_linear_models_says_the_average():
    """Which is why it is a model at all: here it is exact, in others nearly so."""
    models = [torch.nn.Linear(3, 2) for _ in range(4)]
    x = torch.randn(7, 3)
    said = torch.stack([model(x) for model in models]).mean(0)
    models[0].load_state_dict(average([m.state_dict() for m in models]))
    assert torch.allclose(models[0](x), said, atol=1e-6)


def test_mistakes_get_one_line():
    with pytest.raises(ValueError, match="no checkpoint was added"):
        Average().state_dict()
    made = Average()
    made.add({"a": torch.zeros(2), "b": torch.zeros(1)})
    for other in ({"a": torch.zeros(3), "b": torch.zeros(1)}, {"b": torch.zeros(1)}):
        with pytest.raises(ValueError, match="checkpoint 2 differs from those before in a"):
            made.add(other)
