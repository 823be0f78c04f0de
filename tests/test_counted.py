"""What torch allocates and runs is booked under the right name, and a difference is not hidden."""

import pytest
import torch
import torch.nn.functional as F

from cookbook_lib.blocks.counted import Counted, beside, walked
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.runs import Run


def test_rows_get_what_ran_after_their_name():
    x, w = torch.ones(2, 3), torch.ones(5, 3)
    with Counted() as at:
        y = F.linear(x, w)
        at("twice")
        y = y * y + 1
        at("other")
        y.exp_().mul_(2)
        at("twice")
        y @ w
        at("")
        F.linear(x, w)
    assert at.flops == {"twice": 2 * 10 + 2 * 2 * 5 * 3, "other": 10}
    assert at.outside == 2 * (2 * 2 * 3 * 5)


def test_plain_is_torchs_own_counter():
    x = torch.ones(4, 4)
    with Counted(plain=True) as at:
        at("row")
        x @ x + x * x
    assert at.flops == {"row": 2 * 4**3}


def test_beside_says_which_rows_agree():
    spec = specs.MLP(d_model=4, d_ff=6)
    x, w = torch.ones(1, 3, 4), {"gate_proj": torch.ones(6, 4), "up_proj": torch.ones(6, 4)}
    with Counted() as at:
        at("gate_proj.weight")
        gate = F.linear(x, w["gate_proj"])
        at("up_proj.weight")
        up = F.linear(x, w["up_proj"])
        at("gate")
        gate * up
    rows = beside(spec, Run(l=3), at.flops)
    assert [row["equal"] for row in rows] == ["yes", "yes", "yes", "no"]
    assert rows[0]["numbers"] == "2 · 1 · 3 · 4 · 6" and rows[-1]["torch counted"] == 0
    with pytest.raises(ValueError, match="torch ran 'gat', expected only rows of mlp"):
        beside(spec, Run(l=3), at.flops + type(at.flops)({"gat": 1}))


def test_walked_compares_formula_spec_and_module():
    spec = specs.Linear(d_in=3, d_out=5, bias=True)
    walk = {"weight": ("", "d_in * d_out"), "bias": ("", "d_out")}
    rows = walked(walk, spec, torch.nn.Linear(3, 5))
    assert rows[0]["formula"] == "d_in · d_out"
    assert rows[-1] == {"parameter": "all", "by hand": 20, "spec": 20, "torch": 20}
    with pytest.raises(ValueError, match="bias is 5 by hand, 5 in the spec, but 0"):
        walked(walk, spec, torch.nn.Linear(3, 5, bias=False))
    with pytest.raises(ValueError, match="weight is 10 by hand, 15 in the spec, but 15"):
        walked(walk | {"weight": ("", "2 * d_out")}, spec, torch.nn.Linear(3, 5))
