"""A step's collectives are those that the papers count, what each rank sends is what a ring sends,
and the terms of its time are volumes over rates."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.collectives import collectives, partial_sums
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.presets import preset
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.specs import (
    KDA,
    MLA,
    MLSTM,
    RGLRU,
    Attention,
    GatedConv,
    Lightning,
    Mamba1,
    Mamba2,
)
from cookbook_lib.calculators.step_time import ADAM, stage_time, step_time, train_report
from cookbook_lib.calculators.wires import Collective

H100 = chip("h100")
LLAMA, ZAMBA2 = preset("llama-3.1-8b"), preset("zamba2-2.7b")
S = 4096
STEADY = settings(max_examples=15, deadline=None, derandomize=True, database=None)


def wires(model=LLAMA, tokens=S, recompute="none", **how) -> dict[tuple[str, str], Collective]:
    found = collectives(model, Parallel(**how), tokens, recompute)
    return {(c.why, c.what): c for c in found}


def ring(n: int) -> tuple[int, int]:
    """Chunks of n that a rank sends to reduce-scatter and to all-gather, by running the ring."""
    held = [[{rank} for _ in range(n)] for rank in range(n)]  # whose parts are in each chunk
    sent = [0, 0]
    for phase in (0, 1):
        for step in range(n - 1):
            moving = [(r, (r - step + phase) % n) for r in range(n)]
            parts = [set(held[r][k]) for r, k in moving]
            for (r, k), part in zip(moving, parts, strict=True):
                held[(r + 1) % n][k] |= part
                sent[phase] += 1
        if phase == 0:
            assert all(len(held[r][(r + 1) % n]) == n for r in range(n))
    assert all(len(chunk) == n for rank in held for chunk in rank)
    return sent[0] // n, sent[1] // n


@STEADY
@given(st.integers(2, 9))
def test_what_a_rank_sends_is_what_it_sends_round_a_ring(n):
    scatter, gather = ring(n)
    size = 100 * n
    sent = {
        kind: Collective("", "", kind, size, 1, n, 1).sent
        for kind in ("reduce-scatter", "all-gather", "all-reduce", "all-to-all")
    }
    assert sent["reduce-scatter"] == pytest.approx(scatter * 100)
    assert sent["all-gather"] == pytest.approx(gather * 100)
    assert sent["all-reduce"] == pytest.approx((scatter + gather) * 100)
    assert sent["all-to-all"] == pytest.approx(sum(100 for peer in range(n) if peer))


@pytest.mark.parametrize("zero, volumes", ((0, 2), (1, 2), (2, 2), (3, 3)))
def test_zero_sends_twice_the_weights_and_its_third_stage_three_times(zero, volumes):
    """arXiv:1910.02054, section 7: 2 Psi, 2 Psi and 3 Psi, for many ranks."""
    gpus = 1024
    sent = sum(c.sent for c in wires(gpus=gpus, zero=zero).values())
    assert sent == pytest.approx(volumes * 2 * LLAMA.params() * (gpus - 1) / gpus)


def test_gradient_accumulation_repeats_only_what_zero_does_not_keep():
    for zero, times in ((0, [1]), (1, [1, 1]), (2, [4, 1]), (3, [4, 8])):
        found = wires(gpus=8, zero=zero, global_batch=32)
        assert [c.times for c in found.values()] == times


def test_a_transformer_layer_sums_twice_forward_and_twice_backward():
    """arXiv:1909.08053, section 3: four all-reduces of b s h for each layer; outside the layers
    one for the embedding, forward, and one for the head, backward."""
    found = wires(gpus=8, tp=8, micro_batch=3)
    forward, backward = found["tp", "sums forward"], found["tp", "sums backward"]
    assert forward.times == 2 * 32 + 1 and backward.times == 2 * 32 + 1
    assert forward.nbytes == backward.nbytes == 2 * 3 * S * 4096
    again = wires(gpus=8, tp=8, recompute="full")["tp", "sums forward"]
    assert again.times == 2 * 2 * 32 + 1  # not what lies outside the layers


def sums(block, tp=4, b=2, l=8):
    return partial_sums(block, block.shard(tp=tp), Run(b=b, l=l))


def test_hybrids_sum_at_the_end_of_a_block_and_mamba1_inside_too():
    n = 2 * 8  # tokens
    mamba2 = Mamba2(d_model=64, headdim=16, ngroups=4)
    assert sums(mamba2) == ([n * 64], [n * 64])
    mamba1 = Mamba1(d_model=64)
    low = mamba1.rank + 2 * mamba1.d_state  # dt, B and C are made of all channels
    assert sums(mamba1) == ([n * low, n * 64], [n * 64, n * low])
    wide = Attention(d_model=64, d_in=128, n_heads=8, n_kv_heads=8, head_dim=16)
    assert sums(wide) == ([n * 64], [n * 128])  # Zamba's reads the embeddings too


def test_newer_mixers_sum_once_each_way_but_for_their_narrow_middles():
    n = 2 * 8
    plain = (
        GatedConv(d_model=64),
        RGLRU(d_model=64, n_heads=4),
        Lightning(d_model=64, n_heads=4, head_dim=16),
        MLSTM(d_model=64, n_heads=4, d_qk=32, d_v=64),
    )
    for block in plain:
        assert sums(block) == ([n * 64], [n * 64]), block.component
    mla = MLA(d_model=64, n_heads=8, q_lora_rank=24, kv_lora_rank=16)
    assert sums(mla) == ([n * 64], [n * 24, n * 16])  # each rank makes its latents of all of x
    assert sums(mla.but(q_lora_rank=None)) == ([n * 64], [n * 64, n * 16])
    kda = KDA(d_model=64, n_heads=4, head_dim=16)
    assert sums(kda) == ([n * 64], [n * 64, n * 16, n * 16])  # decay and gate, of rank head_dim


def test_experts_exchange_tokens_four_times_a_layer():
    found = wires(preset("mixtral-8x7b-v0.1"), gpus=8, ep=8)
    tokens = found["ep", "tokens"]
    assert (tokens.times, tokens.nbytes) == (4 * 32, 2 * S * 2 * 4096)  # two of eight experts
    assert ("dp", "gradients of experts") not in found  # each rank has its own
    assert wires(preset("mixtral-8x7b-v0.1"), gpus=16, ep=8)["dp", "gradients of experts"]


def test_the_optimizer_s_traffic_splits_experts_over_fewer_ranks():
    mixtral = preset("mixtral-8x7b-v0.1")
    times = {}
    for ep in (1, 8):
        how = Parallel(gpus=8, ep=ep, zero=1)
        (stage,) = how.stages(mixtral)
        *_, times[ep] = stage_time(stage, H100, how, Run(l=S), "none")
    held = mixtral.params() / 8  # an eighth of all, or an eighth of the rest and whole experts
    assert times[1] == times[8] == pytest.approx(held * ADAM / H100.bandwidth)


def test_context_ranks_pass_keys_and_values_and_states():
    found = wires(ZAMBA2, gpus=4, cp=4)
    kv, states = found["cp", "keys and values"], found["cp", "states"]
    assert kv.nbytes * 9 == ZAMBA2.state_bytes("kv", s=S) // 4  # nine uses of attention
    assert kv.times == 9 * 3 * 3  # three hops; forward once, backward with the gradients
    ssm, conv = ZAMBA2.state_bytes("ssm"), ZAMBA2.state_bytes("conv")
    assert states.nbytes * states.times == 2 * (ssm + conv)
    assert ("cp", "states") not in wires(LLAMA, gpus=4, cp=4)


def test_zamba_sends_the_embeddings_along_and_sums_what_stages_share():
    found = wires(ZAMBA2, gpus=2, pp=2, global_batch=8)
    assert found["pp", "stream"].nbytes == 2 * 2 * S * 2560
    assert found["pp", "stream"].times == 2 * 8
    shared = 2 * (26 * 2560**2 + 3 * 2560) + 32000 * 2560  # two blocks, and the tied embedding
    assert found["pp", "shared weights"].nbytes == 2 * shared
    plain = wires(LLAMA, gpus=2, pp=2, global_batch=8)
    assert plain["pp", "stream"].nbytes == 2 * S * 4096 and len(plain) == 1


def test_no_wires_on_one_gpu():
    assert not wires(ZAMBA2)


def test_a_group_uses_the_link_of_its_node_or_the_cards_of_all_its_ranks_there():
    def seconds(ranks, stride, kind="all-gather"):
        return Collective("", "", kind, 10**9, 1, ranks, stride).seconds(H100)

    assert seconds(8, 1) == 7 / 8 * 1e9 / H100.link
    assert seconds(16, 8) == 15 / 16 * 1e9 / H100.network
    assert seconds(16, 1) == pytest.approx(15 / 16 * 1e9 / (8 * H100.network))
    assert seconds(2, 8, "send") == 1e9 / H100.network
    assert seconds(16, 1, "all-to-all") == pytest.approx(8 / 16 * 1e9 / H100.network)
    with pytest.raises(
        ValueError, match="network is None, expected bytes/s: L40S has none on record"
    ):
        Collective("", "", "send", 1, 1, 16, 1).seconds(chip("l40s"))


def test_arithmetic_takes_the_flops_of_the_step_at_the_peak():
    how, run = Parallel(gpus=8, global_batch=32), {"l": S, "attention": "causal"}
    light = sum(r.flops for r in ZAMBA2.costs(**run) if not r.params)
    for recompute, flops in (
        ("none", ZAMBA2.step_flops(**run)),
        ("selective", ZAMBA2.step_flops(**run) + light),
        ("full", ZAMBA2.step_flops(recompute=True, **run)),
    ):
        step = step_time(ZAMBA2, H100, how, S, recompute)
        assert step.flops == 32 * ZAMBA2.step_flops(**run)
        assert step.math == pytest.approx(32 * flops / (8 * H100.flops), rel=1e-6)


def schedule(stages: int, micro_batches: int) -> int:
    """Slots until the last stage is done, where a stage takes one for each micro-batch in turn."""
    done = [[0] * micro_batches for _ in range(stages)]
    for i in range(stages):
        for j in range(micro_batches):
            before = done[i - 1][j] if i else 0
            done[i][j] = 1 + max(before, done[i][j - 1] if j else 0)
    return done[-1][-1]


@STEADY
@given(st.sampled_from((1, 2, 4, 8)), st.integers(1, 12))
def test_the_bubble_is_what_a_schedule_leaves_empty(stages, micro_batches):
    how = Parallel(gpus=stages, pp=stages, global_batch=micro_batches)
    step = step_time(LLAMA, H100, how, 64)
    assert step.bubble == pytest.approx(1 - micro_batches / schedule(stages, micro_batches))


def test_the_terms_and_their_names():
    step = step_time(LLAMA, H100, Parallel(gpus=64, zero=3), 1024)
    assert step.bound_by == "communication" and step.overlapped == step.communication
    assert step.summed == step.math + step.communication
    more = step_time(LLAMA, H100, Parallel(gpus=64, zero=1, global_batch=4096), S)
    assert more.bound_by == "math" and more.overlapped == more.math > more.memory
    fast = step_time(LLAMA, replace(H100, bandwidth=1e15), Parallel(), S)
    assert fast.memory < step_time(LLAMA, H100, Parallel(), S).memory


def test_zamba_7b_ran_at_an_eighth_of_the_peak_by_the_rule_and_a_fifth_by_the_rows():
    """128 H100 for 30 days on 10^12 tokens: zyphra.com/zamba, 2024-04."""
    zamba, seconds = preset("zamba-7b-v1"), 30 * 86400
    by_rule = 6 * zamba.params() * 1e12 / (128 * seconds)
    assert by_rule == pytest.approx(131e12, rel=0.01)
    how = Parallel(gpus=128, zero=1, global_batch=1024)
    report = train_report(zamba, H100, how, S, 10**12, mfu=0.219)
    assert report["days"] == pytest.approx(30, rel=0.01)
    assert by_rule / H100.flops == pytest.approx(0.132, abs=0.001)


def test_a_report_agrees_with_itself():
    how = Parallel(gpus=16, global_batch=64)
    report = train_report(ZAMBA2, H100, how, S, 10**9, mfu=0.4, price=2.0)
    assert report["flops_per_gpu_second"] == pytest.approx(0.4 * H100.flops)
    assert report["seconds"] == pytest.approx(10**9 / report["tokens_per_second"])
    assert report["seconds"] == pytest.approx(report["steps"] * report["seconds_per_step"])
    assert report["gpu_hours"] == pytest.approx(16 * 24 * report["days"])
    assert report["cost"] == 2 * report["gpu_hours"]
    assert report["energy_joules"] == pytest.approx(700 * 3600 * report["gpu_hours"])
    assert report["fits"] == (report["memory_bytes"] <= H100.memory)
    best = train_report(ZAMBA2, H100, how, S, 10**9)
    assert best["mfu"] == best["mfu_overlapped"] and best["cost"] is None
    assert best["seconds_per_step"] == best["overlapped_seconds"] < best["summed_seconds"]


@pytest.mark.parametrize(
    "change, words",
    (
        ({"mfu": 1.5}, "mfu is 1.5, expected a part of the peak"),
        ({"price": -1.0}, "price is -1.0, expected a price"),
        ({"train_tokens": 0}, "train_tokens is 0, expected a whole number above 0"),
        ({"tokens": 0}, "tokens is 0, expected a whole number above 0"),
    ),
)
def test_mistakes_are_named(change, words):
    given = {"tokens": S, "train_tokens": 10**9} | change
    with pytest.raises(ValueError, match=words):
        train_report(LLAMA, H100, Parallel(), given.pop("tokens"), **given)
