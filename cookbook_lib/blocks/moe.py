"""Mixture of experts: a router sends each token to a few of many MLPs and adds up what they say.

Softmax top-k as in Mixtral (arXiv:2401.04088) and OLMoE (arXiv:2409.02060); top-1 with a sigmoid
gate and Sinkhorn balancing as in BlackMamba (arXiv:2402.01771, section 3.2).
Axes: b batch, l tokens of each, n = b l tokens, e experts, k experts of one token (topk).
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cookbook_lib.blocks.mlp import MLP, activation_named
from cookbook_lib.blocks.naming import Named
from cookbook_lib.blocks.sinkhorn import Balance, sinkhorn
from cookbook_lib.calculators import specs

GATES = ("softmax", "sigmoid")
BALANCES = ("none", "sinkhorn")


def route(
    logits: Float[Tensor, "n e"],
    topk: int,
    gate: str = "softmax",
    normalise: bool = True,
    scores: Float[Tensor, "n e"] | None = None,
) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
    """Which experts each token goes to, and the weight of each one's answer, in float32 at least.

    gate: "softmax" over all experts, or the "sigmoid" of each logit by itself.
    normalise: make the chosen weights sum to 1 (Mixtral, Granite); Jamba, OLMoE, BlackMamba don't.
    scores: what to choose by, if not the logits (Sinkhorn's plan): no gradient flows through it.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    weights = logits.softmax(-1) if gate == "softmax" else logits.sigmoid()
    experts = (logits if scores is None else scores).topk(topk, -1).indices
    weights = weights.gather(-1, experts)
    return experts, weights / weights.sum(-1, keepdim=True) if normalise else weights


def mix(
    x: Float[Tensor, "n d"],
    experts: Int[Tensor, "n k"],
    weights: Float[Tensor, "n k"],
    each: list[Callable[[Tensor], Tensor]],
) -> Float[Tensor, "n d"]:
    """The weighted sum of what its experts say of each token; `each` maps m tokens to m answers.

    Sorts the (token, expert) pairs by expert, so that an expert runs once, on its own rows, and one
    that no token chose runs nothing: the work is that of the pairs.
    """
    order = experts.flatten().argsort(stable=True)
    token = order // experts.shape[1]
    counts = torch.bincount(experts.flatten(), minlength=len(each)).tolist()
    parts = x[token].split(counts)
    said = torch.cat([expert(part) for expert, part in zip(each, parts, strict=True) if len(part)])
    said = said * weights.flatten()[order, None].to(x.dtype)
    return torch.zeros_like(x).index_add(0, token, said)


class Stacked(nn.Module):
    """All experts of a layer as two stacked weights: what transformers keeps."""

    def __init__(self, spec: specs.MoE, activation: str):
        super().__init__()
        self.spec, self.act = spec, activation_named(activation)
        self.up = "gate_up_proj" if spec.gated else "up_proj"
        shapes = {
            self.up: (spec.n_experts, spec.d_up, spec.d_expert),
            "down_proj": (spec.n_experts, spec.d_expert, spec.d_ff),
        }
        for name, shape in shapes.items():
            weight = torch.empty(shape).uniform_(-1, 1) * shape[-1] ** -0.5  # as nn.Linear has it
            self.register_parameter(name, nn.Parameter(weight))

    def one(self, i: int, x: Float[Tensor, "m d_expert"]) -> Float[Tensor, "m d_expert"]:
        """What expert `i` says of m tokens."""
        y = F.linear(x, getattr(self, self.up)[i])
        if self.spec.gated:
            gate, up = y.chunk(2, -1)
            return F.linear(self.act(gate) * up, self.down_proj[i])
        return F.linear(self.act(y), self.down_proj[i])

    def __iter__(self):
        return (partial(self.one, i) for i in range(self.spec.n_experts))


def separate(spec: specs.MoE, activation: str) -> tuple[str, nn.ModuleList]:
    """Experts as MLPs of their own, and the name of the list: what BlackMamba's checkpoints keep.

    Their names in the spec have a star for the expert: `local_experts.*.linear_fc1.weight`.
    """
    up = "gate_up_proj" if spec.gated else "up_proj"
    there = {name: spec.renamed(f"experts.{name}").split(".*.") for name in (up, "down_proj")}
    mlp = specs.MLP(
        d_model=spec.d_expert,
        d_ff=spec.d_ff,
        gated=spec.gated,
        fused=spec.gated,
        names=tuple((name, weight.removesuffix(".weight")) for name, (_, weight) in there.items()),
    )
    mlps = (MLP(mlp, activation=activation) for _ in range(spec.n_experts))
    return there[up][0], nn.ModuleList(mlps)


class MoE(Named):
    """`specs.MoE`: router and experts.

    gate, normalise: see `route`. balance: "sinkhorn" lets Sinkhorn choose while training, as
    BlackMamba does; evaluation is by the logits alone. `balancer` is the function that does it.
    """

    def __init__(
        self,
        spec: specs.MoE,
        *,
        gate: str = "softmax",
        normalise: bool = True,
        balance: str = "none",
        activation: str = "silu",
    ):
        super().__init__(spec)
        if spec.n_routed:
            raise ValueError(f"n_routed is {spec.n_routed}, expected None: a part of it cannot run")
        for name, value, known in (("gate", gate, GATES), ("balance", balance, BALANCES)):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        self.gating, self.normalise, self.balance = gate, normalise, balance
        self.balancer: Callable[[Tensor], Balance] = sinkhorn
        self.add("router", nn.Linear(spec.d_model, spec.n_experts, bias=spec.router_bias))
        self.stored = "experts"
        if "*" in spec.renamed("experts.down_proj"):
            self.stored, experts = separate(spec, activation)
        else:
            experts = Stacked(spec, activation)
        self.add(self.stored, experts)

    def route(
        self, x: Float[Tensor, "n d_model"]
    ) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
        """The experts of each token and the weights of their answers."""
        logits, scores = self.part("router")(x), None
        if self.balance == "sinkhorn" and self.training:
            scores = self.balancer(logits.detach()).log_plan
        return route(logits, self.spec.topk, self.gating, self.normalise, scores)

    def forward(
        self, x: Float[Tensor, "b l d_model"], latent: Float[Tensor, "b l d_expert"] | None = None
    ) -> Float[Tensor, "b l d_expert"]:
        """latent: what the experts read where that is narrower than what the router reads."""
        experts, weights = self.route(x.flatten(0, 1))
        read = x if latent is None else latent
        y = mix(read.flatten(0, 1), experts, weights, list(self.part(self.stored)))
        return y.view_as(read)
