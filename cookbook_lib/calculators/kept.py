"""What a block keeps of the forward pass until the backward pass needs it: named tensors.

A tensor has axes, as in the block's einsums, and a dtype. Which tensors they are depends on what
runs:

- eager: this package's blocks in plain PyTorch on a CPU, as `saved_tensors_hooks` sees them.
- unfused: the same, with attention in three steps, so that its L x L scores are kept.
- fused: the kernels that large models are trained with: FlashAttention (arXiv:2205.14135), those
  of mamba_ssm 2.3.2, which keep the output of in_proj and recompute the convolution and the scan,
  and those of flash-linear-attention 0.6.0 (fla), mlstm_kernels 2.0.6 and recurrentgemma. They are
  read from what their autograd functions save.

MLA, KDA, the gated convolution, lightning, mLSTM and RG-LRU declare the fused list alone; their
eager one is the bound that their einsums give.

Selective recomputation keeps the fused list less what is `light`: what a norm, an activation
function or a product of kept numbers gives again. So no scores and nothing inside a scan is kept.
"""

from math import prod
from typing import NamedTuple

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import parse
from cookbook_lib.calculators.runs import BITS, Run, choose

WIDTHS = {"int64": 64, "bool": 8, "bf16": 16}
KERNELS = ("eager", "unfused", "fused")
RECOMPUTE = ("none", "selective", "full")
STREAM = {"d_model", "d_x", "d_in"}  # what these axes hold is between the blocks: SP splits it
STREAM |= {"q_lora_rank", "kv_lora_rank", "d_kv_a"}  # and MLA's latents: see its shard


class Kept(NamedTuple):
    """A tensor kept for the backward pass.

    dtype: "" for the run's, or its own. "cast" is a copy in float32 and "low" one back in the run's
    dtype, which a run in float32 does not make; "uncast" is what it keeps instead.
    light: cheap to make again from the other kept tensors.
    """

    name: str
    axes: str
    dtype: str = ""
    light: bool = False

    def bits(self, dtype: str) -> int:
        """Bits of an element; 0 if a run in this dtype does not keep the tensor."""
        low = BITS[dtype] < 32
        if self.dtype in ("cast", "low", "uncast"):
            kept = low if self.dtype != "uncast" else not low
            return kept * (32 if self.dtype == "cast" else BITS[dtype])
        if self.dtype in WIDTHS:
            return WIDTHS[self.dtype]
        return max(32, BITS[dtype]) if self.dtype == "fp32" else BITS[dtype]


def tensors(block: Block, run: Run, kernels: str = "fused") -> list[Kept]:
    """What the block keeps if nothing is recomputed."""
    choose("kernels", kernels, KERNELS)
    declared = getattr(block, f"kept_{kernels}", None) or getattr(block, "kept_eager", None)
    return declared(run) if declared else from_rows(block, run)


def from_rows(block: Block, run: Run) -> list[Kept]:
    """What the block's einsums read, where it declares nothing: an upper bound for most.

    A product of two tensors keeps both, one with a weight the other. Linears in a row that read the
    same axes read one tensor.
    """
    kept, last = [], None
    for op in block.ops(run):
        inputs = [axes for axes in parse(op.einsum)[0] if "b" in axes]
        weighted = len(inputs) == 1
        if not (weighted and inputs[0] == last):
            kept += [Kept(op.name, " ".join(axes)) for axes in inputs]
        last = inputs[0] if weighted else None
    return kept


def selective(block: Block, run: Run) -> list[Kept]:
    """What the block keeps under selective recomputation, whatever the kernels."""
    return [t for t in tensors(block, run) if not t.light]


def in_stream(tensor: Kept) -> bool:
    """Whether the tensor lies between the blocks, with a whole channel axis on every rank."""
    return bool(STREAM & set(tensor.axes.split())) or tensor.axes in ("b l", "b p")


def nbytes(block: Block, tensor: Kept, run: Run, dtype: str) -> int:
    """Bytes of a kept tensor, rounded up."""
    size = block.size(run)
    return -(-prod(map(size, tensor.axes.split())) * tensor.bits(dtype) // 8)
