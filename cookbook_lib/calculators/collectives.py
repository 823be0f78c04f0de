"""What a training step puts on the wires: its collectives, counted from the einsums."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from math import prod

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import parse
from cookbook_lib.calculators.memory import named_weights
from cookbook_lib.calculators.model import Layout, Model
from cookbook_lib.calculators.parallel import Parallel, Stage
from cookbook_lib.calculators.runs import BITS, Run
from cookbook_lib.calculators.wires import Collective

WIDTH = BITS["bf16"] // 8  # bytes of an activation, a weight or a gradient on the wire


def collectives(
    model: Model, how: Parallel, tokens: int, recompute: str = "none"
) -> tuple[Collective, ...]:
    """What a rank of the longest stage takes part in during one training step.

    recompute: "full" repeats what the layers send forward.
    """
    stages = how.stages(model)
    stage, again = max(stages, key=lambda stage: len(stage.layout)), recompute == "full"
    found = [
        *gradients(stage.layout, how),
        *channels(stage, how, tokens, again),
        *experts(stage.layout, how, tokens, again),
        *contexts(stage.layout, how, tokens, again),
        *pipeline(model, stages, how, tokens),
    ]
    times: Counter[Collective] = Counter()
    for c in found:
        if c.ranks > 1 and c.nbytes:
            times[c._replace(times=0)] += c.times
    return tuple(c._replace(times=n) for c, n in times.items())


def gradients(stage: Layout, how: Parallel) -> Iterator[Collective]:
    """Gradients, and with ZeRO weights: arXiv:1910.02054, section 7.

    Stages 0 and 1 keep the sum of the micro-batches; 2 and 3 reduce the gradients of each, and 3
    gathers the weights for each forward and each backward pass.
    """
    m, held = how.micro_batches, named_weights(stage, how).values()
    for what, expert, stride in (("weights", False, how.tp), ("experts", True, how.tp * how.ep)):
        size = WIDTH * sum(w.elements for w in held if w.expert == expert)
        ranks, grads = how.copies(expert), f"gradients of {what}"
        if how.zero == 0:
            yield Collective("dp", grads, "all-reduce", size, 1, ranks, stride, False)
            continue
        times, each = (m, True) if how.zero > 1 else (1, False)
        yield Collective("dp", grads, "reduce-scatter", size, times, ranks, stride, each)
        times, each = (2 * m, True) if how.zero == 3 else (1, False)
        yield Collective("dp", what, "all-gather", size, times, ranks, stride, each)


def channels(stage: Stage, how: Parallel, tokens: int, again: bool) -> Iterator[Collective]:
    """Sums over the tensor parallel ranks, arXiv:1909.08053, section 3.

    Forward, of each op that adds up over an axis of which a rank has a part. Backward, of the
    gradient of what the block reads, and of every such sum inside the block. With sequence
    parallelism each all-reduce becomes a reduce-scatter and an all-gather, which send as much.
    """
    counted: Counter[tuple[str, int]] = Counter()
    run = Run(b=how.micro_batch, l=how.tokens(tokens))
    ends = (*stage.before, *stage.after)
    for name, block in stage.layout:
        if block.component != "lora":  # it reads what the block that it adapts reads
            forward, backward = partial_sums(block, block.shard(tp=how.tp), run)
            repeated = again and (name, block) not in ends
            counted.update(("forward", n) for n in forward * (1 + repeated))
            counted.update(("backward", n) for n in backward)
    for (way, elements), times in counted.items():
        yield Collective(
            "tp",
            f"sums {way}",
            "all-reduce",
            WIDTH * elements,
            times * how.micro_batches,
            how.tp,
            1,
        )


def partial_sums(block: Block, shard: Block, run: Run) -> tuple[list[int], list[int]]:
    """Elements of each sum over the ranks, forward and backward, of one block.

    Backward, each rank has a part of the gradient of a whole tensor that meets a split weight: of
    the block's input, summed once however many weights read it, and of each narrow middle. Left out
    are the sums of a norm over all heads, a number for each token, and of MLA's key that rotates.
    """
    size, part, ops = block.size(run), shard.size(run), block.ops(run)
    entering = parse(ops[0].einsum)[0][0]
    sums, whole = [], {}
    for op in ops:
        inputs, out = parse(op.einsum)
        split = {axis for axis in {*chain(*inputs), op.gather} - {""} if size(axis) != part(axis)}
        # experts' outputs are weighed and added up first
        if split - set(out):
            sums.append(prod(size(axis) for axis in out if axis != op.take))
        weight = {axis for axes in inputs if "b" not in axes for axis in axes}
        for axes in inputs:
            if "b" in axes and not split & set(axes) and split & weight and not sums:
                whole[axes if axes == entering else (op.name, *axes)] = prod(
                    size(axis) for axis in axes if axis != op.take
                )
    return sums, [*whole.values(), *sums[:-1]]


def experts(stage: Layout, how: Parallel, tokens: int, again: bool) -> Iterator[Collective]:
    """Tokens to their experts and back, forward and backward: arXiv:2006.16668, section 3.2."""
    n = how.micro_batch * how.tokens(tokens)
    for _, block in stage:
        if k := getattr(block, "topk", 0):
            size = WIDTH * n * k * block.d_expert
            times = (2 * (1 + again) + 2) * how.micro_batches
            yield Collective("ep", "tokens", "all-to-all", size, times, how.ep, how.tp)


def contexts(stage: Layout, how: Parallel, tokens: int, again: bool) -> Iterator[Collective]:
    """Keys and values round the ring, arXiv:2310.01889, section 3; states to the next rank.

    Backward, keys and values go round again, and their gradients with them.
    """
    b, m, forward = how.micro_batch, how.micro_batches, 1 + again
    for _, block in stage:
        shard = block.shard(tp=how.tp)
        kv = shard.state_bytes("kv", b=b, s=how.tokens(tokens))
        fixed = shard.state_bytes("ssm", b=b) + shard.state_bytes("conv", b=b)
        hops = (how.cp - 1) * (forward + 2) * m
        yield Collective("cp", "keys and values", "send", kv, hops, how.cp, how.tp)
        yield Collective("cp", "states", "send", fixed, (forward + 1) * m, how.cp, how.tp)


def pipeline(
    model: Model, stages: tuple[Stage, ...], how: Parallel, tokens: int
) -> Iterator[Collective]:
    """The stream to the next stage and its gradient back; sums of what several stages share.

    Where blocks read the embeddings too (Zamba), those travel beside the stream.
    """
    d = model.before[0][1].d_model
    wide = any(getattr(block, "d_in", None) == 2 * d for _, block in model.layout)
    size = WIDTH * how.micro_batch * how.tokens(tokens) * d * (1 + wide)
    size //= how.tp if how.sp else 1
    stride = how.tp * how.cp * how.dp
    yield Collective("pp", "stream", "send", size, 2 * how.micro_batches, how.pp, stride)
    uses = Counter(name for stage in stages for name in dict(stage.layout))
    sizes = {name: how.shard(block).params() for name, block in model.layout}
    for n in sorted(set(uses.values()) - {1}):
        shared = sum(sizes[name] for name, k in uses.items() if k == n)
        yield Collective("pp", "shared weights", "all-reduce", WIDTH * shared, 1, n, stride, False)
