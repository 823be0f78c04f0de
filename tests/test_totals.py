"""The planner's fast totals equal, to the digit, what a model's own rows and states add up to."""

import math
from random import Random

import pytest

from cookbook_lib.calculators import presets
from cookbook_lib.calculators.chips import CHIPS
from cookbook_lib.calculators.hardware import roofline
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.space import grid
from cookbook_lib.calculators.storage import Storage
from cookbook_lib.calculators.totals import totals

TRAIN = Run(b=2, l=512, attention="causal")
STORE = Storage(weights="int4", cache="fp8")
SERVE = Run(b=3, l=1, s=1000)
SAMPLE = Random(0).sample([c for c in grid() if c.d_model <= 4096], 60)


def check(model):
    fast = totals(model, TRAIN, SERVE, CHIPS["phone"], STORE)
    assert fast.params == model.params()
    assert fast.params_active == model.params_active()
    assert fast.flops == model.flops(b=2, l=512, attention="causal")
    assert math.isclose(fast.weight_bytes, STORE.weights_nbytes(model), rel_tol=1e-12)
    assert fast.cache_bytes == STORE.states_nbytes(model, 3, 1000)
    slow = roofline(model, CHIPS["phone"], SERVE, STORE).fused
    assert math.isclose(fast.seconds, slow, rel_tol=1e-12)


@pytest.mark.parametrize("name", presets.names())
def test_published_models(name):
    check(presets.preset(name))


@pytest.mark.parametrize("choice", SAMPLE, ids=lambda c: c.label)
def test_a_random_sample_of_what_the_planner_looks_at(choice):
    check(choice.model())
