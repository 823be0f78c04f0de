"""Above the collectives: buckets as DDP fills them, the part that compute hides, what a compiler
combines, where bf16 is rounded, and which layer is slow by a stated rule."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cookbook_lib.benchmarks.buckets import gradient_sizes
from cookbook_lib.benchmarks.layers import below_from
from cookbook_lib.calculators.presets import preset
from cookbook_lib.cli import main
from cookbook_lib.communication import compiled, overlap_jax, overlap_torch
from cookbook_lib.communication.fusion import FIRST, bucket_sweep, ddp_step, packed
from cookbook_lib.communication.launch import launch
from cookbook_lib.communication.layers import Layer, layer, memory, over, slowest_of, verdict, walk
from cookbook_lib.communication.overlap import hidden
from cookbook_lib.communication.rounding import bf16_sums
from cookbook_lib.communication.rounds import rounds

DATA = Path(__file__).parent / "data/micro"
POSITIVE = st.floats(1e-6, 1e3)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 300))
def test_buckets_hold_each_tensor_once_from_last_to_first_and_are_full_but_the_last(sizes, cap):
    buckets = packed(sizes, cap)
    assert [i for bucket in buckets for i in bucket] == list(reversed(range(len(sizes))))
    held = [[sizes[i] for i in bucket] for bucket in buckets]
    assert all(sum(one) >= cap for one in held[:-1])
    assert all(sum(one[:-1]) < cap for one in held)


def test_buckets_are_those_that_ddp_makes_and_its_gradients_are_right():
    sizes = [300_000, 10, 70_000, 500_000, 24, 24, 200_000, 3]
    caps = [0.5, 2.0, 25.0]
    for row in launch(ddp_step, 2, {"sizes": sizes, "caps": caps, "repeats": 1})[0]:
        nbytes = [4 * n for n in sizes]
        ours = packed(nbytes, int(row["cap"] * 2**20))
        assert row["buckets"] == [sum(nbytes[i] for i in bucket) for bucket in ours]
    assert FIRST == torch.distributed._DEFAULT_FIRST_BUCKET_BYTES


def test_however_tensors_are_summed_the_trace_shows_the_messages_and_the_same_bytes():
    sizes = [1000] * 20 + [7, 50_000]
    rows = launch(bucket_sweep, 2, {"sizes": sizes, "caps": [10_000, 10**9], "repeats": 1})[0]
    messages = {row["how"]: row["messages"] for row in rows}
    nbytes = [4 * n for n in sizes]
    assert messages["one by one"] == nbytes and sorted(messages["all at once"]) == sorted(nbytes)
    ours = [sum(nbytes[i] for i in bucket) for bucket in packed(nbytes, 10_000)]
    assert sorted(messages["buckets of 10000"]) == sorted(ours)
    assert messages["buckets of 1000000000"] == [sum(nbytes)] and messages["copies"] == []


def test_gradients_of_a_models_layers_are_those_of_its_specs():
    model = preset("mamba2-130m")
    each = sum(sum(block.weights().values()) for _, block in model.layer(0))
    assert sum(gradient_sizes("mamba2-130m", 3)) == 3 * each
    with pytest.raises(ValueError, match="layers is 99, expected 1 to 24"):
        gradient_sizes("mamba2-130m", 99)


@given(POSITIVE, POSITIVE)
def test_what_runs_in_turn_hides_nothing_and_what_costs_no_time_is_hidden(a, b):
    assert hidden(a, b, a + b) == pytest.approx(0, abs=1e-9)
    assert hidden(a, b, max(a, b)) == pytest.approx(1)
    assert hidden(a, b, a + b + min(a, b)) == pytest.approx(-1)
    with pytest.raises(ValueError, match="expected above 0"):
        hidden(a, 0.0, b)


def test_overlap_is_proved_in_torch_and_in_jax_whose_program_for_cpus_waits():
    row = launch(overlap_torch.overlap, 2, {"nbytes": 40_000, "repeats": 1})[0]
    assert set(row["seconds"]) == {"communication", "compute", "in turn", "together"}
    row = launch(overlap_jax.overlap, 1, {"nbytes": 40_000, "repeats": 1, "devices": 2})[0]
    assert row["starts"] is False and row["products"] >= 1


def test_torch_compile_keeps_the_messages_and_xla_makes_one_of_them():
    eager, traced = launch(compiled.in_torch, 2, {"tensors": 5, "count": 10, "repeats": 1})[0]
    assert eager["messages"] == traced["messages"] == [40] * 5
    each, one = launch(compiled.in_jax, 1, {"tensors": 5, "count": 10, "repeats": 1, "devices": 2})[
        0
    ]
    assert each["messages"] == [40] * 5 and one["messages"] == [200]


def test_gloo_sends_bf16_as_it_is_and_rounds_after_each_addition():
    two, three = (launch(bf16_sums, n, {"count": 4000})[0] for n in (2, 3))
    for row in (two, three):
        assert row["messages"] == {"bf16": [8000], "fp32": [16000]}
        assert row["step_by_step"] == 1.0
    assert two["at_the_end"] == 1.0 and two["error in bf16"] == two["error in fp32"]
    assert three["at_the_end"] < 0.9 and three["error in bf16"] > three["error in fp32"]


@pytest.mark.skipif(bool(compiled.why_no_graph()), reason=str(compiled.why_no_graph()))
def test_a_cuda_graph_gives_the_same_sums():
    rows = launch(compiled.in_a_graph, 1, {"tensors": 8, "count": 1000, "repeats": 3})[0]
    assert [row["how"] for row in rows] == ["launched one by one", "one graph"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_a_cuda_graph_says_what_it_needs():
    with pytest.raises(ValueError, match="a CUDA graph needs a GPU"):
        launch(compiled.in_a_graph, 1, {"tensors": 8, "count": 1000, "repeats": 3})


def exactly(name, seconds, below=None):
    return Layer(name, "", seconds, seconds, seconds, below)


def test_a_layer_is_judged_by_its_ratio_to_the_one_below():
    rows = walk(
        [
            exactly("hardware", 1.0),
            exactly("micro", 1.2, "hardware"),
            exactly("torch", 1.8, "micro"),
            exactly("jax", 3.0, "micro"),
            exactly("ddp", 1.7, "torch"),
        ]
    )
    assert [row.get("verdict") for row in rows] == [None, "little", "some", "slow", "little"]
    assert slowest_of(rows) == "jax"
    with pytest.raises(ValueError, match="top stands on 'roof', expected one of hardware"):
        walk([exactly("hardware", 1.0), exactly("top", 1.0, "roof")])


@given(POSITIVE, POSITIVE, st.floats(1, 3), st.floats(1, 3))
def test_a_verdict_is_called_noisy_if_and_only_if_the_intervals_allow_two(a, b, wide, wider):
    one, below = Layer("x", "", a, a / wide, a * wide), Layer("y", "", b, b / wider, b * wider)
    said = verdict(one, below)
    exact = {verdict(exactly("x", x), exactly("y", y)) for x in one[3:5] for y in below[3:5]}
    assert said.endswith("noisy") == (len(exact) > 1)
    assert said.partition(",")[0] == verdict(exactly("x", a), exactly("y", b))


def test_a_layer_takes_a_median_with_its_interval_or_a_mean_alone():
    assert layer("x", "", {"median": 2.0, "low": 1.0, "high": 3.0})[2:5] == (2.0, 1.0, 3.0)
    assert layer("x", "", {"mean": 2.0})[2:5] == (2.0, 2.0, 2.0)


def test_overhead_is_told_for_the_sizes_that_both_have():
    def row(nbytes, backend, seconds):
        return {"op": "all_reduce", "ranks": 2, "nbytes": nbytes, "backend": backend} | {
            "seconds": seconds
        }

    micro = [row(8, "mpi", {"mean": 1e-6}), row(16, "mpi", {"mean": 2e-6})]
    (one,) = over(micro, [row(16, "torch gloo", {"median": 8e-6}), row(32, "x", {"median": 1.0})])
    assert (one["ratio"], one["overhead"], one["nbytes"]) == (4.0, pytest.approx(6e-6), 16)


def test_a_copy_moves_what_the_busiest_link_carries():
    row = launch(memory, 2, {"op": "all_reduce", "nbytes": 40_000, "repeats": 1})[0]
    assert row["nbytes"] == 40_000  # 2 (n - 1) / n of them
    assert row["seconds"]["median"] > 0


def test_each_call_of_a_round_is_timed_as_often_and_the_first_does_not_count():
    calls = []
    timings = rounds(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, lambda: None, list, 3
    )
    assert calls == ["a", "b"] * 4 and [len(t.samples) for t in timings.values()] == [3, 3]


def test_a_file_stands_for_the_layer_below_if_it_has_an_all_reduce_by_as_many_ranks():
    rows = below_from(DATA / "coreweave-gb200.txt", 72)
    assert len(rows) == 10
    with pytest.raises(ValueError, match="no all_reduce by 2 ranks, expected one: see --devices"):
        below_from(DATA / "coreweave-gb200.txt", 2)
    with pytest.raises(ValueError, match="as nccl-tests: .* as OSU: "):
        below_from(DATA / "none.txt", 2)


def test_the_commands_print_json_and_say_in_a_line_what_is_wrong(capsys):
    main(["bench", "buckets", "--tensors", "3", "--caps", "1Ki", "--repeats", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["sizes"] == [1024] * 3 and [row["cap"] for row in found["ddp"]] == [2**-10]
    for words, said in (
        (["buckets", "--devices", "1"], "devices is 1"),
        (["buckets", "--caps", "none"], "caps is 'none', expected whole bytes"),
        (["overlap", "--processes", "1"], "processes is 1 for 2 devices"),
        (["overlap", "--size", "x"], "size is 'x'"),
        (["overlap", "--backend", "jax", "--processes", "1", "--link", "1e6"], "link is given"),
        (["layers", "--layers", "0"], "layers is 0, expected 1 to 24"),
        (["layers", "--model", "none"], "none"),
        (["layers", "--micro", "none.txt"], "none.txt: cannot be read"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["bench", *words])
        error = capsys.readouterr().err
        assert end.value.code == 2 and said in error and error.count("\n") == 1
