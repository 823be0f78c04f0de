"""Zamba and Zamba2: Mamba layers, some of which first ask a transformer block that they share.

The shared block reads the stream and the embeddings side by side and has no residual inside. What
it says goes through a linear of the layer's own and is added to what that layer's Mamba reads, not
to the stream: arXiv:2405.16712, equation 6; arXiv:2411.15242, section 2. Axes: b, l, d d_model.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cookbook_lib.blocks.models.language_model import LanguageModel, Layer, Pass


class Zamba(LanguageModel):
    """Mamba-1 in several heads, and one shared block."""

    shared = "shared_transf"  # what the checkpoints call the block

    def layer(
        self, parts: Layer, x: Float[Tensor, "b l d"], x0: Float[Tensor, "b l d"], run: Pass
    ) -> Float[Tensor, "b l d"]:
        if "mamba" in parts:
            return x + run(parts["mamba"], run(parts["input_layernorm"], x))
        said = run(parts["linear"], self.ask(parts, x, x0, run))
        y = run(parts["mamba_decoder.input_layernorm"], x + said)
        return x + run(parts["mamba_decoder.mamba"], y)

    def ask(
        self, parts: Layer, x: Float[Tensor, "b l d"], x0: Float[Tensor, "b l d"], run: Pass
    ) -> Float[Tensor, "b l d"]:
        """What the shared block says of the stream and the embeddings."""
        own = {k.removeprefix(f"{self.shared}."): use for k, use in parts.items()}
        loras = {k.rpartition(".")[2]: use.module for k, use in own.items() if "_adapter_" in k}
        qkv = {f"{k}_proj": f"linear_{k}_adapter_list" for k in "qkv"}
        qkv = {name: loras[lora] for name, lora in qkv.items() if lora in loras}
        y = run(own["input_layernorm"], self.read(x, x0))
        y = run(own["self_attn"], y, adapters=qkv)
        y = run(own["pre_ff_layernorm"], y)
        return run(own["feed_forward"], y, adapter=loras.get("gate_up_proj_adapter_list"))

    def read(self, x: Float[Tensor, "b l d"], x0: Float[Tensor, "b l d"]) -> Float[Tensor, "b l e"]:
        """What the shared block reads."""
        return torch.cat([x, x0], -1)


class Zamba2(Zamba):
    """Mamba-2, and some shared blocks used in turn, with a LoRA for each use."""

    shared = "shared_transformer"
