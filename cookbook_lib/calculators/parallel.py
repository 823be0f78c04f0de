"""How a training step is spread over GPUs, and which part of a model each of them holds.

Four ways that multiply, as in Megatron-Core: gpus = dp * tp * pp * cp. Tensor parallelism (tp)
splits the channels of each block, the pipeline (pp) the layers, context parallelism (cp) the
tokens of a sequence, data parallelism (dp) the sequences. Expert parallelism (ep) takes no GPUs of
its own: it spreads the experts over the dp * cp ranks that would otherwise all hold the same ones.
"""

from dataclasses import dataclass, fields

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Layout, Model


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a model: its layers, and on the first and last stage what is around them."""

    before: Layout
    layers: tuple[Layout, ...]
    after: Layout

    @property
    def layout(self) -> Layout:
        """Every block of the stage in the order it runs."""
        return sum((self.before, *self.layers, self.after), ())


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """A way to train on `gpus` GPUs; dp follows from the rest.

    zero: what is split over the dp * cp ranks too: 0 nothing, 1 optimizer states, 2 gradients as
        well, 3 weights as well (FSDP): arXiv:1910.02054, section 5.
    sp: what lies between the split blocks (norms, residuals) is split over the tp ranks by tokens:
        arXiv:2205.05198, section 4.2.2.
    micro_batch: sequences that run at once. global_batch: sequences of a step; None for as many
        micro-batches as there are stages, the fewest that keep each stage busy.
    """

    gpus: int = 1
    zero: int = 0
    tp: int = 1
    sp: bool = False
    pp: int = 1
    ep: int = 1
    cp: int = 1
    micro_batch: int = 1
    global_batch: int | None = None

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("zero", "sp") and value is not None and not positive(value):
                raise ValueError(f"{field.name} is {value!r}, expected a whole number above 0")
        if self.zero not in (0, 1, 2, 3):
            raise ValueError(f"zero is {self.zero!r}, expected 0, 1, 2 or 3")
        if self.gpus % self.replica:
            raise ValueError(
                f"gpus is {self.gpus}, expected a multiple of tp * pp * cp ({self.replica})"
            )
        if self.shared_by % self.ep:
            raise ValueError(
                f"ep is {self.ep}, expected a divisor of dp * cp ({self.shared_by}): "
                "experts are spread over the data and context parallel ranks"
            )
        if self.global_batch is not None and self.global_batch % (self.dp * self.micro_batch):
            raise ValueError(
                f"global_batch is {self.global_batch}, expected a multiple of dp * micro_batch "
                f"({self.dp} * {self.micro_batch})"
            )

    @property
    def replica(self) -> int:
        """GPUs that hold one copy of the model."""
        return self.tp * self.pp * self.cp

    @property
    def dp(self) -> int:
        """Copies of the model, each with sequences of its own."""
        return self.gpus // self.replica

    @property
    def shared_by(self) -> int:
        """Ranks that hold the same weights, and over which ZeRO splits: dp * cp."""
        return self.dp * self.cp

    def copies(self, expert: bool) -> int:
        """Ranks that hold the same weights: of experts that are dealt out there are fewer."""
        return self.shared_by // self.ep if expert else self.shared_by

    @property
    def micro_batches(self) -> int:
        """Micro-batches of each pipeline in one step."""
        whole = self.global_batch or self.pp * self.dp * self.micro_batch
        return whole // (self.dp * self.micro_batch)

    def in_flight(self, stage: int) -> int:
        """Micro-batches whose activations a stage holds at most, forward and backward in turn.

        1F1B, arXiv:2104.04473, section 2.2: stage i starts pp - i of them before the first returns.
        """
        return min(self.pp - stage, self.micro_batches)

    def tokens(self, tokens: int) -> int:
        """Tokens of each sequence on one context parallel rank."""
        if tokens % self.cp:
            raise ValueError(f"tokens is {tokens}, expected a multiple of cp ({self.cp})")
        return tokens // self.cp

    def shard(self, block: Block) -> Block:
        """What one rank holds and runs of a block; `ValueError` says which number to change."""
        return block.shard(tp=self.tp, ep=self.ep)

    def stages(self, model: Model) -> tuple["Stage", ...]:
        """What each stage of the pipeline runs, whole, in order.

        The embedding belongs to the first stage, the final norm and the head to the last. Layers
        are spread by number; where they do not divide, later stages take one more. A block that
        several stages use is in each of them: each holds its weights, and their gradients are
        summed. So it is with Zamba's shared blocks and with an embedding that is the head too.
        """
        n = len(model.pattern)
        if self.pp > n:
            raise ValueError(f"pp is {self.pp}, expected at most the model's {n} layers")
        ends = [n * i // self.pp for i in range(self.pp + 1)]
        return tuple(
            Stage(
                before=model.before if first == 0 else (),
                layers=tuple(model.layer(i) for i in range(first, last)),
                after=model.after if last == n else (),
            )
            for first, last in zip(ends, ends[1:], strict=False)
        )

    def check(self, model: Model) -> None:
        """`ValueError` unless the model can be split so; the line says which number to change."""
        blocks = dict.fromkeys(block for _, block in model.layout)
        experts = [n for block in blocks if (n := getattr(block, "n_experts", 0))]
        if self.ep > 1 and not experts:
            raise ValueError(f"ep is {self.ep}, expected 1: {model.name} has no experts")
        for block in blocks:
            self.shard(block)
        self.stages(model)


def positive(value: object) -> bool:
    return type(value) is int and value > 0
