"""Channel mixing: the MLP, and the mixture of experts that stores many and runs a few."""

from dataclasses import dataclass

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, linear


@dataclass(frozen=True, kw_only=True)
class MLP(Block):
    """Two linears, or three with a gate (SwiGLU, GEGLU); `fused` keeps gate and up in one."""

    d_model: int
    d_ff: int
    gated: bool = True
    fused: bool = False
    bias: bool = False

    component = "mlp"
    d_gate_up = property(lambda self: 2 * self.d_ff)

    def shard(self, tp=1, ep=1):
        return self.but(**self.split(tp, "d_ff"))

    def ops(self, run):
        if self.gated and self.fused:
            ins = {"gate_up_proj": "d_gate_up"}
        else:
            ins = {"gate_proj": "d_ff", "up_proj": "d_ff"} if self.gated else {"up_proj": "d_ff"}
        ops = [op for name, d in ins.items() for op in linear(name, "d_model", d, self.bias)]
        gate = [Op("gate", "b l d_ff, b l d_ff -> b l d_ff")] * self.gated
        return [*ops, *gate, *linear("down_proj", "d_ff", "d_model", self.bias)]


@dataclass(frozen=True, kw_only=True)
class MoE(Block):
    """Routed MLPs: stores `n_experts`, computes `topk` of them for each token, and adds them up.

    Shared experts are `MLP`s beside it. Experts may work in a narrower width, `d_expert`.
    """

    d_model: int
    d_ff: int
    n_experts: int
    topk: int
    gated: bool = True
    router_bias: bool = False
    d_latent: int | None = None
    n_routed: int | None = None  # experts of all ranks, where this one holds a part of them

    component = "moe"
    d_expert = property(lambda self: self.d_latent or self.d_model)
    d_up = property(lambda self: (1 + self.gated) * self.d_ff)
    n_chosen_from = property(lambda self: self.n_routed or self.n_experts)

    def __post_init__(self):
        super().__post_init__()
        if self.topk > self.n_chosen_from:
            raise ValueError(
                f"topk is {self.topk}, expected at most n_experts ({self.n_chosen_from})"
            )

    def shard(self, tp=1, ep=1):
        """Each expert is split like an MLP, then the experts are dealt out.

        The router stays whole: `n_routed` is how many experts it chooses from. Its choices are
        taken to be balanced, so that a rank gets as many tokens as it sends.
        """
        mine = self.split(ep, "n_experts", by="ep")
        return self.but(**self.split(tp, "d_ff"), **mine, n_routed=self.n_chosen_from)

    def ops(self, run):
        x, y, up = "b l topk d_expert", "b l topk d_ff", "gate_up" if self.gated else "up"
        expert = {"gather": "n_experts", "take": "topk"}
        return [
            *linear("router", "d_model", "n_chosen_from", self.router_bias),
            Op(f"experts.{up}_proj", f"{x}, n_experts d_expert d_up -> b l topk d_up", **expert),
            *[Op("gate", f"{y}, {y} -> {y}")] * self.gated,
            Op("experts.down_proj", f"{y}, n_experts d_ff d_expert -> {x}", **expert),
            Op("combine", f"{x}, b l topk -> b l d_expert", kind="elementwise"),  # weigh and add
        ]
