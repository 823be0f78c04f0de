"""The table of collectives is what torch and JAX do, number by number; what it says is on the wire
is what the interfaces count; and a benchmark that measures something else is caught."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cookbook_lib.communication import broken, jax_bench, links, torch_bench, wire_count
from cookbook_lib.communication.collectives import COLLECTIVES, collective, wire
from cookbook_lib.communication.launch import launch
from cookbook_lib.communication.messages import EXACT, WIDTH, counted, inputs
from cookbook_lib.communication.proof import Claim, different, moved
from cookbook_lib.communication.seen import Seen, about_trace

NCCL = {  # https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md, and src/*.cu
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "broadcast": lambda n: 1,
    "reduce": lambda n: 1,
    "scatter": lambda n: (n - 1) / n,
    "gather": lambda n: (n - 1) / n,
    "permute": lambda n: 1,  # its sendrecv
}
OPS = sorted(COLLECTIVES)
ranks = st.integers(2, 64)


@given(ranks)
def test_bus_factors_are_those_of_nccl_tests(n):
    for name, factor in NCCL.items():
        assert collective(name).bus(n) == factor(n)


@given(ranks)
def test_the_busiest_link_carries_at_least_its_share_and_at_most_all(n):
    for row in COLLECTIVES.values():
        assert row.total(n) / n <= row.bus(n) <= row.total(n)


@settings(deadline=None)  # it makes megabytes
@given(st.sampled_from(OPS), st.sampled_from(sorted(EXACT)), st.integers(2, 16), ranks)
def test_every_number_that_is_due_is_exact_in_its_dtype(op, dtype, n, blocks):
    row = collective(op)
    count = counted(row, n, 1024 * blocks, dtype)
    for r in range(n):
        for array in (row.puts(r, n, x := inputs(row, n, count, dtype)), row.gets(r, n, x)):
            if array is not None:
                assert array.max() <= EXACT[dtype] and (array == np.round(array)).all()


@given(st.sampled_from(OPS), st.integers(2, 8))
def test_the_message_is_the_larger_of_what_goes_in_and_what_comes_out(op, n):
    row, count = collective(op), 8 * n
    x = inputs(row, n, count, "fp32")
    pairs = [(row.puts(r, n, x), row.gets(r, n, x)) for r in range(n)]
    assert max(len(a) for pair in pairs for a in pair if a is not None) == count


def test_a_wrong_number_anywhere_is_seen():
    """No rank's message, nor any part of it, looks like another's."""
    for op in OPS:
        row, n, count = collective(op), 4, 4096
        x = inputs(row, n, count, "bf16")
        outputs = [row.gets(r, n, x) for r in range(n)]
        for a, b in product(range(n), repeat=2):
            if a != b and op not in ("all_reduce", "all_gather", "broadcast"):
                assert (
                    outputs[a] is None or outputs[b] is None or different(0, outputs[a], outputs[b])
                )


def test_gloo_does_what_the_table_says_between_two_and_three_ranks():
    """Each rank raises if its profile, its count or its result is not that of the table."""
    for n, dtype in ((2, "bf16"), (3, "int32")):
        todo = [(op, counted(collective(op), n, 4 * 1024, dtype) * WIDTH[dtype]) for op in OPS]
        arguments = {"todo": todo, "dtype": dtype, "device": "cpu", "seconds": 1e-9}
        rows = launch(torch_bench.sweep, n, arguments)[0]
        assert [row["op"] for row in rows] == OPS and all(row["checked"] for row in rows)
        assert [row["nbytes"] for row in rows] == [nbytes for _, nbytes in todo]
        ran = {row["op"]: row["ran"] for row in rows}
        assert ran["reduce_scatter"] == "gloo:all_reduce" and ran["scatter"] == "gloo:scatter"


@pytest.mark.parametrize(("processes", "devices"), [(1, 4), (2, 1)])
def test_jax_does_what_the_table_says_in_one_process_and_in_several(processes, devices):
    n = processes * devices
    todo = [(op, counted(collective(op), n, 4 * 1024, "bf16") * 2) for op in OPS]
    arguments = {"todo": todo, "dtype": "bf16", "device": "cpu", "seconds": 1e-9}
    rows = launch(jax_bench.sweep, processes, arguments | {"devices": devices})[0]
    assert [row["op"] for row in rows] == OPS and all(row["checked"] for row in rows)
    ran = {row["op"]: row["ran"] for row in rows}
    assert ran["broadcast"] == ran["reduce"] == "all_reduce f32"  # as its row says, and not in bf16


@pytest.mark.skipif(bool(links.missing()), reason=f"no links of a known rate: {links.missing()}")
def test_the_interfaces_count_what_the_table_puts_on_the_wire():
    n, size = 4, 2**19
    todo = [(op, nbytes) for op in OPS for nbytes in (size, 2 * size)]
    with links.network(n, rate=1e9) as net:
        found = launch(wire_count.count_bytes, n, {"todo": todo}, seats=net.seats)
    total = [sum(each) for each in zip(*found, strict=True)]
    # gloo reduces in parts, each on one rank, and sends those to the root: a part more than needed
    due = {op: wire(op, n, "gloo") for op in OPS} | {"reduce": (n - 1) * (1 + 1 / n)}
    for i, op in enumerate(OPS):
        # what grows with the message: 66 bytes of headers for each 1448 of TCP, and its answers
        assert 0.9 < (total[2 * i + 1] - total[2 * i]) / size / due[op] < 1.2, op


def test_the_ported_benchmarks_are_caught_each_for_its_own_mistake():
    found = launch(broken.judged, 1, {"devices": 4, "count": 1024})[0]
    assert found["broadcast"][0] == "the compiled program of broadcast holds no collective"
    assert "the clock did not wait for the result of exchange" in found["exchange"]
    assert "sends 6,144, 0.25 times as many" in found["all_reduce"][0]


def test_a_handle_that_nobody_keeps_is_caught_by_the_result():
    for found in launch(broken.dropped_handle, 2, {"count": 2**20, "late": 0.2}):
        assert "wrong numbers of 1,048,576" in found["complaint"]


PROGRAM = """
  %a = f32[1,64]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%sum
  %b = (bf16[1,16]{1,0}, bf16[1,64]{1,0}) all-gather-start(%y), dimensions={1}
  %c = bf16[1,64]{1,0} all-gather-done(%b)
  %d = f32[1,16]{1,0} reduce-scatter(%z), dimensions={1}, to_apply=%sum
  %e = bf16[1,64]{1,0} collective-permute(%y), source_target_pairs={{0,3},{3,0}}
  %f = (f32[1,16]{1,0}, f32[1,16]{1,0}, f32[1,16]{1,0}, f32[1,16]{1,0}) all-to-all(%p, %q, %r, %s)
"""


def test_a_programs_collectives_are_read_with_dtype_and_size_also_if_they_are_asynchronous():
    assert [tuple(m) for m in moved(PROGRAM, 4)] == [
        ("all_reduce", "f32", 64, 6 * 64),
        ("all_gather", "bf16", 64, 3 * 64),
        ("reduce_scatter", "f32", 64, 3 * 64),
        ("permute", "bf16", 64, 2 * 64),
        ("all_to_all", "f32", 64, 3 * 64),
    ]


def claim(**changes) -> Claim:
    x = inputs(collective("all_reduce"), 4, 64, "fp32")
    right = Claim(
        op="all_reduce",
        ranks=4,
        dtype="fp32",
        nbytes=256,
        program=PROGRAM.splitlines()[1],
        outputs=dict.fromkeys(range(4), sum(x(r) for r in range(4))),
        waited=True,
    )
    return replace(right, **changes)


def test_a_claim_is_proved_only_if_program_size_result_and_clock_agree():
    assert claim().complaints() == []
    sums = claim().outputs[0]
    off = sums.copy()
    off[7] += 1
    for changes, said in (
        ({"program": ""}, "holds no collective"),
        ({"program": PROGRAM.splitlines()[2]}, "all_gather sends 192, 0.5 times as many"),
        ({"outputs": {0: sums, 2: off}}, "rank 2 has 1 wrong numbers of 64: the one at 7 is"),
        ({"outputs": {0: sums / 4}}, "wrong numbers of 64"),
        ({"waited": False}, "did not wait"),
    ):
        (complaint,) = claim(**changes).complaints()
        assert said in complaint
    assert len(claim(nbytes=1024).complaints()) == 2  # the size of all devices: program and result


def test_a_profile_proves_a_collective_only_with_its_name_and_its_numbers():
    def trace(*names: tuple[str, int], backend: str = "gloo") -> list[Seen]:
        return [Seen(backend, name, n, 4 * n) for name, n in names]

    assert not about_trace("all_reduce", trace(("all_reduce", 64)), "gloo", 64, 64)
    assert not about_trace("reduce_scatter", trace(("all_reduce", 64)), "gloo", 64, 16)
    both = trace(("send", 64), ("recv", 64))
    assert not about_trace("permute", both, "gloo", 64, 64)
    assert not about_trace("permute", trace(("coalesced", 0), backend="nccl"), "nccl", 64, 64)
    for op, found, said in (
        ("broadcast", [], "shows no collective of broadcast: nothing"),
        ("broadcast", trace(("all_reduce", 64)), "shows no collective of broadcast: all_reduce"),
        ("all_reduce", trace(("all_reduce", 16)), "must move 64 numbers; collective has 16"),
        ("permute", both[:1], "shows no recv of permute: send"),
    ):
        assert said in "; ".join(about_trace(op, found, "gloo", 64, 64))


def test_an_unknown_collective_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="op is 'allreduce', expected one of all_reduce, all_gath"):
        collective("allreduce")
    with pytest.raises(ValueError, match="ranks are 300, expected at most 256 to add up bf16"):
        inputs(collective("reduce"), 300, 300, "bf16")
