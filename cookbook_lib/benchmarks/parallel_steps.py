"""A training step of one layer, spread over ranks by sequences or by channels, and what it sends.

The layer is made of this package's blocks. Each rank's part is the block of the calculators' shard,
with the weights cut out of the whole; the sums between the ranks stand where Megatron has them.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cookbook_lib.blocks.models.modules import make
from cookbook_lib.blocks.models.options import Options
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.collectives import channels, gradients
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Layout
from cookbook_lib.calculators.parallel import Parallel, Stage
from cookbook_lib.communication.member import Member
from cookbook_lib.communication.seen import Seen, seen
from cookbook_lib.communication.torch_ranks import joined

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}
D_MODEL, BATCH, TOKENS = 64, 4, 32
LAYERS: dict[str, Layout] = {  # a norm before each block, whose output is added to the stream
    "mamba2": (
        ("norm", specs.Norm(d_model=D_MODEL)),
        ("mixer", specs.Mamba2(d_model=D_MODEL, headdim=16, d_state=16, ngroups=2, chunk_size=16)),
    ),
    "transformer": (
        ("input_norm", specs.Norm(d_model=D_MODEL)),
        ("attention", specs.Attention(d_model=D_MODEL, n_heads=8, n_kv_heads=2, head_dim=8)),
        ("post_norm", specs.Norm(d_model=D_MODEL)),
        ("mlp", specs.MLP(d_model=D_MODEL, d_ff=160)),
    ),
}


class Enter(torch.autograd.Function):
    """Whole activations enter split weights: backward, each rank has a part of their gradient.

    f of arXiv:1909.08053, figure 3.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return summed(grad)


class Leave(torch.autograd.Function):
    """Each rank has a part of a sum: g of arXiv:1909.08053, figure 3."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return summed(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad


def summed(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


class Layer(nn.Module):
    """x + block(norm(x)) for each norm and block of a layout; split over `tp` ranks if above 1."""

    def __init__(self, layout: Layout, tp: int = 1):
        super().__init__()
        self.tp = tp
        self.parts = nn.ModuleDict({n: make(block.shard(tp=tp), Options()) for n, block in layout})

    def forward(self, x: Tensor) -> Tensor:
        modules = list(self.parts.values())
        for norm, block in zip(modules[::2], modules[1::2], strict=True):
            y = norm(x)
            x = x + (block(y) if self.tp == 1 else Leave.apply(block(Enter.apply(y))))
        return x


def segments(block: Block, name: str) -> list[int] | None:
    """Lengths of what lies in one weight, one after the other, and is split each on its own."""
    match block:
        case specs.Mamba2():
            bc = block.ngroups * block.d_state
            xBC = [block.d_inner, bc, bc]
            return {
                "in_proj": [block.d_inner, *xBC, block.nheads],
                "conv1d": xBC,
            }.get(name.partition(".")[0])
    return None


def cut(whole: Tensor, part: Tensor, pieces: list[int] | None, tp: int, rank: int) -> Tensor:
    """What `rank` holds of a weight: cut along the axis in which its part is smaller."""
    axes = [i for i, (a, b) in enumerate(zip(whole.shape, part.shape, strict=True)) if a != b]
    if not axes:
        return whole
    (axis,) = axes
    pieces = pieces if pieces and sum(pieces) == whole.shape[axis] else [whole.shape[axis]]
    return torch.cat([x.chunk(tp, axis)[rank] for x in whole.split(pieces, axis)], axis)


def cut_all(layout: Layout, whole: nn.Module, part: nn.Module, tp: int, rank: int) -> dict:
    """`rank`'s part of each of a layer's parameters, or of their gradients, by name."""
    blocks, found = dict(layout), {}
    for (name, mine), (_, theirs) in zip(
        part.named_parameters(), whole.named_parameters(), strict=True
    ):
        _, block, inner = name.split(".", 2)
        pieces = segments(blocks[block], inner)
        found[name] = tuple(
            None if t is None else cut(t, mine, pieces, tp, rank) for t in (theirs, theirs.grad)
        )
    return found


def step(layer: nn.Module, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Forward and backward: the layer's output, and the gradient of its input."""
    x = x.clone().requires_grad_()
    y = layer(x)
    ((y - target) ** 2).mean().backward()
    return y.detach(), x.grad


def average(layer: nn.Module) -> None:
    """Data parallelism: the mean of all ranks' gradients, in one flat bucket."""
    grads = [p.grad for p in layer.parameters()]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def parallel_steps(member: Member, layers: list[str], ways: list[str], dtypes: list[str]) -> list:
    """A rank's steps by "dp" and "tp": how far each is from the whole, and what its trace shows."""
    with joined(member):
        return [
            {"layer": layer, "way": way, "dtype": dtype} | one_step(member, layer, way, dtype)
            for layer in layers
            for way in ways
            for dtype in dtypes
        ]


def one_step(member: Member, layer: str, way: str, dtype: str) -> dict:
    layout, rank, ranks = LAYERS[layer], member.place.rank, member.place.size
    if way == "tp" and ranks != 2:
        raise ValueError(
            f"ranks is {ranks}, expected 2 for tp: these layers have two key heads and groups, and "
            "what several ranks copy needs its gradient summed as well"
        )
    torch.manual_seed(0)  # the same weights and inputs on all ranks
    whole = Layer(layout).to(DTYPES[dtype])
    x, target = torch.randn(2, BATCH, TOKENS, D_MODEL).to(DTYPES[dtype])
    y, dx = step(whole, x, target)
    part = Layer(layout, tp=ranks if way == "tp" else 1).to(DTYPES[dtype])
    pieces = cut_all(layout, whole, part, ranks, rank)
    part.load_state_dict({n: weight.detach() for n, (weight, _) in pieces.items()})
    if way == "dp":
        mine = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
        x, target = x[mine], target[mine]
        y, dx = y[mine], dx[mine] * ranks  # its mean is over fewer sequences
    got: list[tuple[Tensor, Tensor]] = []

    def run() -> None:
        got.append(step(part, x, target))
        if way == "dp":
            average(part)

    with member.doing(f"a step of {layer} by {way}"):
        trace = seen(run)
    pairs = [(got[0][0], y), (got[0][1], dx)]
    pairs += [(p.grad, pieces[n][1]) for n, p in part.named_parameters()]
    apart = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    return {"apart": apart, "trace": [list(one) for one in trace]}


def predicted(layer: str, way: str, ranks: int) -> list[Seen]:
    """The same from the calculators, which count two bytes a number; each message by itself."""
    layout = LAYERS[layer]
    if way == "dp":
        found = list(gradients(layout, Parallel(gpus=ranks)))
    else:
        split = Parallel(gpus=ranks, tp=ranks, micro_batch=BATCH)
        stage = Stage(before=(), layers=(layout,), after=())
        found = list(channels(stage, split, TOKENS, again=False))
    return [
        Seen("gloo", c.kind.replace("-", "_"), c.nbytes // 2, c.nbytes)
        for c in found
        for _ in range(c.times if c.nbytes else 0)
    ]
