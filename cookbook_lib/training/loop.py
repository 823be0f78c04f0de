"""The training loop: a model, a plan of rates, batches; a step at a time, until the plan is over.

A step reads `batch` sequences over all ranks, in parts of `micro_batch`. Its loss is the mean over
the tokens that have a target, wherever they lie: unequal parts weigh what they hold.
Axes: b sequences, l tokens.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from cookbook_lib.blocks.models import LanguageModel
from cookbook_lib.training.initialisation import scale_outputs
from cookbook_lib.training.optimizers import optimizers
from cookbook_lib.training.ranks import Ranks, clipped, exchange, spread
from cookbook_lib.training.sampling import IGNORE, Batch


@runtime_checkable
class Plan(Protocol):
    """What a run follows: `phases.Plan` is one."""

    @property
    def tokens(self) -> float: ...
    def lr(self, t: float) -> float: ...


@runtime_checkable
class Sampler(Protocol):
    """What a run reads: `sampling.Sampler` is one."""

    length: int

    def draw(self, sequences: int, rank: int = 0, ranks: int = 1) -> Batch: ...
    def state(self) -> dict[str, Any]: ...
    def load(self, state: Any) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a run goes beside its plan.

    batch: sequences of a step, on all ranks. micro_batch: how many a rank runs at once; all of its
    own if None. clip: the most that the gradient's norm may be. bf16: products in bf16, weights and
    sums in float32. compile: blocks by torch.compile. depth_scaling: see `scale_outputs`.
    """

    batch: int = 16
    micro_batch: int | None = None
    optimizer: str = "adamw"
    weight_decay: float = 0.1
    clip: float = 1.0
    bf16: bool = False
    compile: bool = False
    depth_scaling: bool = True
    seed: int = 0


class Run:
    """A model in training. `advance` does a step; `state` is all that the next steps depend on."""

    def __init__(
        self,
        make: Callable[[], LanguageModel],
        plan: Plan,
        sampler: Sampler,
        options: Options | None = None,
        ranks: Ranks | None = None,
    ):
        self.plan, self.sampler = plan, sampler
        self.options, self.ranks = options or Options(), ranks or Ranks()
        o = self.options
        if o.batch < 1 or o.batch % self.ranks.size:
            raise ValueError(f"batch is {o.batch}, expected a multiple of {self.ranks.size} ranks")
        torch.manual_seed(o.seed)  # the same on all ranks
        self.model = make().train()
        if o.depth_scaling:
            scale_outputs(self.model)
        if o.compile:
            for layer in self.model.uses:
                for use in layer.values():
                    use.module.compile()
        spread(self.model, self.ranks)
        self.optimizers = optimizers(self.model, o.optimizer, o.weight_decay)
        self.step = 0

    @property
    def step_tokens(self) -> int:
        return self.options.batch * self.sampler.length

    @property
    def tokens(self) -> int:
        """Tokens read so far."""
        return self.step * self.step_tokens

    @property
    def steps(self) -> int:
        """Steps of the whole plan."""
        return max(1, round(self.plan.tokens / self.step_tokens))

    def advance(self) -> dict[str, Any]:
        """One step: what it read and how it went. `ValueError` at a loss that is no number, before
        it touches the weights."""
        lr = self.plan.lr(self.tokens + self.step_tokens / 2)  # at the middle of the step
        batch = self.sampler.draw(self.options.batch, self.ranks.rank, self.ranks.size)
        vocab = self.model.spec.before[0][1].vocab
        if (most := int(batch.tokens.max())) >= vocab:
            raise ValueError(f"token {most} is in the data, expected less than the model's {vocab}")
        loss = self.gradients(batch)
        norm = float(clipped(self.model, self.options.clip))
        if not (isfinite(loss) and isfinite(norm)):
            raise ValueError(f"loss is {loss}, gradient norm {norm} at step {self.step + 1}")
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return {"step": self.step, "tokens": self.tokens, "loss": loss, "lr": lr, "norm": norm}

    def state(self) -> dict[str, Any]:
        """The tensors that the next steps depend on, in the layout of torch's checkpoints."""
        model, optimizer = get_state_dict(self.model, self.optimizers)
        random = {str(self.ranks.rank): torch.get_rng_state()}
        if self.ranks.device.type == "cuda":
            random[f"{self.ranks.rank} cuda"] = torch.cuda.get_rng_state()
        return {"model": model, "optimizer": optimizer, "random": random}

    def progress(self) -> dict[str, Any]:
        """The rest of it, as plain numbers and names; what must be the same to go on as well."""
        o, spec = self.options, self.model.spec
        same = {"model": spec.name, "pattern": spec.pattern, "params": spec.params()}
        same |= {name: getattr(o, name) for name in ("batch", "optimizer", "weight_decay")}
        return {"step": self.step, "sampler": self.sampler.state(), "same": same}

    def check(self, progress: dict[str, Any]) -> None:
        """`ValueError` if that is how far another kind of run was."""
        for name, mine in self.progress()["same"].items():
            if (theirs := progress["same"].get(name)) != mine:
                raise ValueError(f"{name} is {mine}, expected {theirs}, as in the checkpoint")

    def load(self, state: dict[str, Any], progress: dict[str, Any]) -> None:
        """Go on from there."""
        self.check(progress)
        self.step = progress["step"]
        self.sampler.load(progress["sampler"])
        set_state_dict(
            self.model,
            self.optimizers,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        random, rank = state["random"], str(self.ranks.rank)
        if rank in random:
            torch.set_rng_state(random[rank].cpu())
        if f"{rank} cuda" in random:
            torch.cuda.set_rng_state(random[f"{rank} cuda"].cpu())

    def gradients(self, batch: Batch) -> float:
        """Add up the gradients of this rank's sequences; the mean loss over all ranks."""
        ranks, part = self.ranks, self.options.micro_batch or len(batch.tokens)
        asked = torch.tensor(int((batch.targets != IGNORE).sum()), device=ranks.device)
        asked = ranks.sum(asked).clamp(min=1)
        total = torch.zeros((), device=ranks.device)
        starts = range(0, len(batch.tokens), part)
        for start in starts:
            exchange(self.model, start == starts[-1])
            with autocast(ranks.device, self.options.bf16):
                loss = summed(self.model, batch, slice(start, start + part), ranks.device) / asked
            (loss * ranks.size).backward()  # the ranks' gradients are averaged: the sum is meant
            total += loss.detach()
        return float(ranks.sum(total))


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager:
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def summed(model: LanguageModel, batch: Batch, rows: slice, device: torch.device) -> Tensor:
    """The loss of some sequences, summed over the tokens that have a target."""
    documents = batch.documents[rows]
    packed = bool(np.any(documents != documents[:, :1]))  # one document each needs no mask
    tokens, targets, seq_idx = (
        torch.from_numpy(np.ascontiguousarray(part[rows])).to(device)
        for part in (batch.tokens, batch.targets, batch.documents)
    )
    logits = model(tokens, seq_idx=seq_idx if packed else None)
    return F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )
