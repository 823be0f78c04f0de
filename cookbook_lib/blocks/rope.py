"""Rotary positions: each pair of channels turns by an angle that grows with the position.

RoPE, arXiv:2104.09864; channel i is paired with i + dim / 2, as transformers does. Axes: b batch,
h heads, l tokens, k head_dim, r the channels that turn. The score of two tokens depends only on
how far apart they are, so padding and packing need no positions of their own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

SCALINGS = ("default", "linear", "ntk", "dynamic", "llama3", "yarn")


@dataclass(frozen=True, kw_only=True)
class RoPE:
    """How fast each pair of channels turns, and how that is stretched for longer contexts.

    dim: how many channels of a head turn; None for all.
    scaling: "linear" divides positions by `factor` (arXiv:2306.15595); "ntk" raises theta by
        factor ** (dim / (dim - 2)), as Zamba2-7B does for long contexts; "dynamic" does so from
        the moment that a sequence exceeds `trained`; "llama3" slows down only the slow pairs
        (arXiv:2407.21783, and its released code); "yarn" is arXiv:2309.00071.
    trained: tokens of context that the model was trained with (dynamic, llama3, yarn).
    attention_factor: multiplies cos and sin; None is the scaling's own choice.
    """

    theta: float = 10_000.0
    dim: int | None = None
    scaling: str = "default"
    factor: float = 1.0
    trained: int = 8192
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None

    def __post_init__(self):
        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling is {self.scaling!r}, expected one of {', '.join(SCALINGS)}")
        if self.dim is not None and (self.dim < 2 or self.dim % 2):
            raise ValueError(f"dim is {self.dim!r}, expected an even number above 0")

    @classmethod
    def read(cls, parameters: Mapping, head_dim: int, trained: int) -> "RoPE":
        """From the `rope_parameters` (or `rope_scaling`) of a Hugging Face config.

        trained: the config's `max_position_embeddings`, where the parameters do not say better.
        """
        scaling = parameters.get("rope_type") or parameters.get("type") or "default"
        names = "factor low_freq_factor high_freq_factor beta_fast beta_slow attention_factor"
        given = {k: float(parameters[k]) for k in names.split() if parameters.get(k) is not None}
        part = parameters.get("partial_rotary_factor") or 1.0
        return cls(
            theta=float(parameters.get("rope_theta") or 10_000.0),
            dim=int(head_dim * part) if part != 1.0 else None,
            scaling=scaling,
            trained=int(parameters.get("original_max_position_embeddings") or trained),
            **given,
        )

    def speeds(self, dim: int, length: int, device=None) -> Float[Tensor, " half"]:
        """Radians per token of each pair, slowest last, for a sequence of `length` tokens."""
        theta, stretch = self.theta, 1.0
        if self.scaling == "ntk":
            stretch = self.factor
        elif self.scaling == "dynamic" and length > self.trained:
            stretch = self.factor * length / self.trained - (self.factor - 1)
        theta *= stretch ** (dim / (dim - 2)) if stretch != 1 else 1
        pairs = torch.arange(0, dim, 2, device=device, dtype=torch.float64)
        speeds = theta ** -(pairs / dim)
        if self.scaling == "linear":
            return speeds / self.factor
        if self.scaling == "llama3":  # turns in the trained context: few are stretched, many kept
            turns = self.trained * speeds / (2 * math.pi)
            low, high = self.low_freq_factor, self.high_freq_factor
            keep = ((turns - low) / (high - low)).clamp(0, 1)
            return speeds * (keep + (1 - keep) / self.factor)
        if self.scaling == "yarn":
            first, last = (self.pair(dim, turns) for turns in (self.beta_fast, self.beta_slow))
            first, last = max(math.floor(first), 0), min(math.ceil(last), dim - 1)
            slow = (pairs / 2 - first) / ((last - first) or 0.001)
            keep = 1 - slow.clamp(0, 1)
            return speeds * (keep + (1 - keep) / self.factor)
        return speeds

    def pair(self, dim: int, turns: float) -> float:
        """Which pair (a fraction of one counts) turns so often in the trained context."""
        return dim * math.log(self.trained / (turns * 2 * math.pi)) / (2 * math.log(self.theta))

    @property
    def loudness(self) -> float:
        """What cos and sin are multiplied with: above 1 only for yarn (its section 3.4)."""
        if self.attention_factor is not None:
            return self.attention_factor
        longer = self.scaling == "yarn" and self.factor > 1
        return 0.1 * math.log(self.factor) + 1 if longer else 1.0

    def at(
        self, start: int | Tensor, positions: Int[Tensor, "b l"], head_dim: int, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "b 1 l r"], Float[Tensor, "b 1 l r"]]:
        """`tables`, made once for all layers where one token after the other is decoded."""
        if not isinstance(start, int) or positions.shape[1] > 1:
            return self.tables(positions, head_dim, dtype)
        inference = torch.is_inference_mode_enabled()  # its tensors are no good for training
        return one_place(self, start, positions.device, head_dim, dtype, inference)

    def tables(
        self, positions: Int[Tensor, "b l"], head_dim: int, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "b 1 l r"], Float[Tensor, "b 1 l r"]]:
        """cos and sin of the angles, for `rotate`; in float32 at least until the very end."""
        length = int(positions.max()) + 1 if self.scaling == "dynamic" else 0
        speeds = self.speeds(self.dim or head_dim, length, positions.device)
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        angles = positions.to(exact)[:, None, :, None] * speeds.to(exact)
        angles = torch.cat([angles, angles], -1)
        cos, sin = angles.cos() * self.loudness, angles.sin() * self.loudness
        return cos.to(dtype), sin.to(dtype)


@lru_cache(maxsize=16)
def one_place(rope: RoPE, start: int, device, head_dim: int, dtype: torch.dtype, inference: bool):
    return rope.tables(torch.full((1, 1), start, device=device), head_dim, dtype)


def rotate(
    x: Float[Tensor, "b h l k"], cos: Float[Tensor, "#b 1 l r"], sin: Float[Tensor, "#b 1 l r"]
) -> Float[Tensor, "b h l k"]:
    """Turn the first r channels of each head; leave the rest."""
    x, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], -1)
    left, right = x.chunk(2, -1)
    return torch.cat([x * cos + torch.cat([-right, left], -1) * sin, rest], -1)
