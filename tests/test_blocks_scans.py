"""The scans of Mamba-1, 2 and 3 are one thing in two forms each; Mamba-3's is a complex state's."""

from math import pi

import pytest
import torch
import torch.nn.functional as F
from torch import einsum

from cookbook_lib.blocks.selective_scan import selective_scan_chunked, selective_scan_recurrent
from cookbook_lib.blocks.ssd import ssd_chunked, ssd_recurrent
from cookbook_lib.blocks.trapezoid import (
    total_angles,
    trapezoid_chunked,
    trapezoid_recurrent,
    turned,
)


def draw(*shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


def selective(l: int, b: int = 2, h: int = 2, p: int = 5, n: int = 3) -> list:
    """x, dt, A, B, C and an initial state."""
    dt, A = draw(b, l, h, p).abs(), -draw(h, p, n).abs()
    return [draw(b, l, h, p + 1)[..., :p], dt, A, *draw(2, b, l, h, n), draw(b, h, p, n)]


def dual(l: int, b: int = 2, g: int = 2, r: int = 3, p: int = 5, n: int = 4) -> list:
    """The same, with groups and a decay for each head."""
    dt, A = draw(b, l, g * r).abs(), -draw(g * r).abs()
    return [draw(b, l, g * r, p), dt, A, *draw(2, b, l, g, n), draw(b, g * r, p, n)]


def trapezoid(l: int, b: int = 2, h: int = 3, p: int = 5, n: int = 4) -> list:
    """x, dt, log decay, share, B, C and an initial state: h and the last B and x."""
    dt, a, share = draw(b, l, h).abs(), -draw(b, l, h + 1)[..., :h].abs(), draw(b, l, h).sigmoid()
    state = draw(b, h, p, n), draw(b, h, n), draw(b, h, p)
    return [draw(b, l, h, p), dt, a, share, *draw(2, b, l, h, n), state]


SCANS = {
    "selective": (selective, selective_scan_recurrent, selective_scan_chunked),
    "dual": (dual, ssd_recurrent, ssd_chunked),
    "trapezoid": (trapezoid, trapezoid_recurrent, trapezoid_chunked),
}


@pytest.fixture(params=SCANS)
def scan(request):
    return SCANS[request.param]


def states(state) -> tuple[torch.Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def part(given: list, rows: slice, tokens: slice, state) -> list:
    """Some tokens of some sequences, from another state; A has no tokens."""
    return [t[rows, tokens] if t.ndim > 2 and len(t) > 1 else t for t in given[:-1]] + [state]


@pytest.mark.parametrize("l", [1, 7, 8, 23])
@pytest.mark.parametrize("chunk_size", [1, 4, 8, 64])
def test_chunks_are_the_recurrence(scan, l, chunk_size):
    tokens, recurrent, chunked = scan
    want, last = recurrent(*tokens(l))
    got, end = chunked(*tokens(l), chunk_size)
    assert error(got, want) < 1e-10
    for x, y in zip(states(end), states(last), strict=True):
        assert error(x, y) < 1e-10


def test_groups_share_what_one_head_each_repeats():
    x, dt, A, B, C, state = dual(11, g=2, r=3)
    want = ssd_chunked(x, dt, A, B.repeat_interleave(3, 2), C.repeat_interleave(3, 2), state, 4)
    assert error(ssd_chunked(x, dt, A, B, C, state, 4)[0], want[0]) < 1e-10


@pytest.mark.parametrize("cut", [1, 4, 10, 12])
def test_packed_documents_do_not_leak(scan, cut):
    """The initial state belongs to the first document, the final one is the last document's."""
    make, recurrent, chunked = scan
    given = make(13)
    seq_idx = torch.tensor([[0] * cut + [1] * (13 - cut), [0] * 3 + [1] * 2 + [2] * 8])
    got, end = chunked(*given, 4, seq_idx)
    for row, cuts in enumerate([(0, cut, 13), (0, 3, 5, 13)]):
        rows = slice(row, row + 1)
        own = tuple(s[rows] for s in states(given[-1]))
        for first, last in zip(cuts, cuts[1:], strict=False):
            state = own if isinstance(given[-1], tuple) else own[0]
            document = [
                t if t.shape[0] != 2 or t.ndim < 3 else t[rows, first:last] for t in given[:-1]
            ]
            if make is selective:  # A is (h p n), and there are as many heads as sequences
                document[2] = given[2]
            want, final = recurrent(*document, state)
            assert error(got[rows, first:last], want) < 1e-10
            own = tuple(torch.zeros_like(s) for s in own)
        for x, y in zip(states(end), states(final), strict=True):
            assert error(x[rows], y) < 1e-10


def test_gradients(scan):
    make, _, chunked = scan
    given = make(5)
    flat = [t.requires_grad_() for t in (*given[:-1], *states(given[-1]))]
    seq_idx = torch.tensor([[0, 0, 0, 1, 1], [0, 1, 1, 1, 1]])

    def run(*flat):
        held = flat[len(given) - 1 :]
        state = held if isinstance(given[-1], tuple) else held[0]
        y, last = chunked(*flat[: len(given) - 1], state, 2, seq_idx)
        return y, *states(last)

    assert torch.autograd.gradcheck(run, flat, fast_mode=True)


def test_gradients_without_documents(scan):
    make, recurrent, chunked = scan
    grads = []
    for form in recurrent, chunked:
        given = make(7)
        flat = [t.requires_grad_() for t in (*given[:-1], *states(given[-1]))]
        y, last = form(*given)
        (y.sin().sum() + sum(s.cos().sum() for s in states(last))).backward()
        grads.append([t.grad for t in flat])
    for got, want in zip(*grads, strict=True):
        assert error(got, want) < 1e-10


def test_turning_B_and_C_is_a_complex_state():
    """arXiv:2603.15569, section 3.2: the state as complex numbers that turn as they decay."""
    x, dt, a, share, B, C, _ = trapezoid(9, n=4)
    turn = pi * draw(2, 9, 3, 2).tanh() * dt[..., None]
    angles = total_angles(turn, torch.zeros(2, 3, 2, dtype=torch.float64))
    zeros = [torch.zeros(2, 3, *s, dtype=torch.float64) for s in ((5, 4), (4,), (5,))]
    got, _ = trapezoid_chunked(
        x, dt, a, share, turned(B, angles), turned(C, angles), tuple(zeros), 4
    )
    pairs = [torch.view_as_complex(t.unflatten(-1, (-1, 2))) for t in (B, C)]
    h, before = torch.zeros(2, 3, 5, 2, dtype=torch.complex128), None
    for t in range(9):
        new = x[:, t, :, :, None] * pairs[0][:, t, :, None]
        rate = torch.polar(a[:, t, :, None].exp(), -turn[:, t])[:, :, None]
        lent = ((1 - share) * dt)[:, t, :, None, None] * (0 if before is None else before)
        h = rate * (h + lent) + (share * dt)[:, t, :, None, None] * new
        want = einsum("bhpw, bhw -> bhp", h, pairs[1][:, t].conj()).real
        assert error(got[:, t], want) < 1e-10
        before = new


def test_angles_add_up_across_states_and_stay_small():
    turn, zero = draw(2, 50, 3, 4), torch.zeros(2, 3, 4, dtype=torch.float64)
    whole = total_angles(turn, zero)
    rest = total_angles(turn[:, 20:], whole[:, 19])
    assert error(rest.cos(), whole[:, 20:].cos()) < 1e-10
    assert ((whole >= 0) & (whole < 2 * pi)).all()
    long = total_angles(torch.full((1, 32768, 1, 1), 3.0), torch.zeros(1, 1, 1))
    assert abs(long[0, -1].item() - 3.0 * 32768 % (2 * pi)) < 1e-5


@pytest.mark.parametrize("rate", [1e-4, 1.0, 1e3])
def test_no_decay_overflows(rate):
    """Sums of log decays grow without bound, their differences are what counts."""
    given = [F.pad(t, (0, 0)).float() for t in dual(2048, b=1)]
    y, last = ssd_chunked(given[0], given[1], rate * given[2], *given[3:], 256)
    assert y.isfinite().all() and last.isfinite().all()
    want, _ = ssd_recurrent(given[0], given[1], rate * given[2], *given[3:])
    assert error(y, want) < 1e-4
