"""Options from a `config.json`: one small reader for each family that can run.

As in the readers of sizes, a default is that of the family's class in transformers 5.23.
"""

from collections.abc import Callable
from dataclasses import replace
from math import inf

from cookbook_lib.blocks.models.options import Options
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import Attention, Mamba3


def read_options(f: Fields, spec: Model) -> Options:
    """The options of the model whose config has these fields."""
    if spec.family not in READERS:
        supported = ", ".join(sorted(READERS))
        raise ValueError(f"{f.where}: {spec.family} models can be counted but not run: {supported}")
    try:
        return READERS[spec.family](f, spec)
    except ValueError as error:  # RoPE's own check, which does not know the file
        line = str(error)
        raise ValueError(line if line.startswith(f.where) else f"{f.where}: {line}") from None


def head_dim(spec: Model) -> int:
    """Width of an attention head; all layers of these families agree."""
    return next(block.head_dim for _, block in spec.layout if isinstance(block, Attention))


def rope(f: Fields, dim: int, theta: float = 10_000.0, trained: int = 4096) -> RoPE:
    """`rope_parameters`, or `rope_theta` and `rope_scaling` in older files."""
    theta = f.number("rope_theta", default=theta)
    parameters = f.inside("rope_scaling").data | f.inside("rope_parameters").data
    part = f.number("partial_rotary_factor", default=1.0)
    parameters = {"rope_theta": theta, "partial_rotary_factor": part} | parameters
    return RoPE.read(parameters, dim, f.count("max_position_embeddings", default=trained))


def transformer(eps: float = 1e-6, theta: float = 10_000.0, trained: int = 4096, topk_prob=True):
    """Reader of Llama's kind; the arguments are the class's defaults."""

    def read(f: Fields, spec: Model) -> Options:
        if f.data.get("clip_qkv") is not None:
            f.fail("clip_qkv", "null: clipping is not supported")
        return Options(
            eps=f.number("rms_norm_eps", default=eps),
            activation=f.word("hidden_act", default="silu"),
            normalise=f.flag("norm_topk_prob", default=topk_prob),
            rope=rope(f, head_dim(spec), theta, trained),
        )

    return read


def jamba(f: Fields, spec: Model) -> Options:
    """Jamba: no positions; the weights of the chosen experts do not sum to 1."""
    return Options(
        eps=f.number("rms_norm_eps", default=1e-6),
        activation=f.word("hidden_act", default="silu"),
        normalise=False,
    )


def mamba(f: Fields, spec: Model) -> Options:
    """Mamba and Mamba-2."""
    f.word("hidden_act", default="silu", among=("silu", "swish"))
    return Options(
        eps=f.number("layer_norm_epsilon", default=1e-5),
        fp32_residual=f.flag("residual_in_fp32", default=True),
        dt_limit=limits(f),
    )


def falcon_mamba(f: Fields, spec: Model) -> Options:
    """Falcon-Mamba: Mamba with norms inside."""
    inside = f.number("mixer_rms_eps", default=1e-6)
    return replace(mamba(f, spec), mixer_eps=inside, plain_norms=True)


def limits(f: Fields) -> tuple[float, float]:
    """`time_step_limit`, two numbers; transformers writes infinity as an object."""
    pair = f.data.get("time_step_limit")
    if pair is None:
        return 0.0, inf
    try:
        low, high = (float(x["__float__"]) if isinstance(x, dict) else float(x) for x in pair)
    except (TypeError, ValueError, KeyError):
        f.fail("time_step_limit", "a list of two numbers")
    return low, high


def mamba_ssm(f: Fields, spec: Model) -> Options:
    """mamba_ssm's own format, without attention, which has a convolution inside, or Mamba-3."""
    if any(isinstance(block, Attention) for _, block in spec.layout):
        f.fail("attn_layer_idx", "an empty list: mamba_ssm's attention can be counted, not run")
    if any(isinstance(block, Mamba3) for _, block in spec.layout):
        f.fail("ssm_cfg", "Mamba1 or Mamba2 as its layer: Mamba3 models can be counted, not run")
    return Options(
        fp32_residual=f.flag("residual_in_fp32", default=True),
        gate_first=False,
    )


def blackmamba(f: Fields, spec: Model) -> Options:
    """BlackMamba as its code has it: `swiglu` in the file, but the gate's activation is GELU."""
    f.word("routing_mode", default="sinkhorn", among=("sinkhorn",))
    return Options(
        eps=f.number("layernorm_epsilon", default=1e-5),
        activation="gelu",
        gate="sigmoid",
        normalise=False,
        balance="sinkhorn",
        fp32_residual=f.flag("residual_in_fp32", default=True),
    )


def zamba(f: Fields, spec: Model) -> Options:
    """Zamba: scores scaled as if the heads were half as wide, as one half is the embeddings."""
    f.word("hidden_mamba_act", default="silu", among=("silu", "swish"))
    return Options(
        eps=f.number("rms_norm_eps", default=1e-5),
        activation=f.word("hidden_act", default="gelu"),
        scale=(head_dim(spec) / 2) ** -0.5,
    )


def zamba2(f: Fields, spec: Model) -> Options:
    """Zamba2: steps are at least `time_step_min`; the norm inside Mamba-2 has its own constant.

    `use_long_context` raises theta as Zyphra's code does; transformers 5.23 only says that it does.
    """
    positions = None
    if f.flag("use_mem_rope", default=False):
        positions = rope(f, head_dim(spec))
        if f.flag("use_long_context", default=False):
            positions = RoPE(theta=positions.theta, scaling="ntk", factor=8.0)
    return Options(
        eps=f.number("rms_norm_eps", default=1e-5),
        mixer_eps=1e-5,
        activation=f.word("hidden_act", default="gelu"),
        scale=(head_dim(spec) / 2) ** -0.5,
        rope=positions,
        dt_limit=(f.number("time_step_min", default=1e-3), inf),
    )


READERS: dict[str, Callable[[Fields, Model], Options]] = {
    "blackmamba": blackmamba,
    "falcon_mamba": falcon_mamba,
    "jamba": jamba,
    "llama": transformer(trained=2048),
    "mamba": mamba,
    "mamba2": mamba,
    "mamba_ssm": mamba_ssm,
    "mistral": transformer(trained=131_072),
    "mixtral": transformer(eps=1e-5, theta=1e6, trained=131_072),
    "olmoe": transformer(eps=1e-5, topk_prob=False),
    "phi3": transformer(eps=1e-5),
    "qwen2": transformer(trained=32_768),
    "qwen3": transformer(trained=32_768),
    "qwen3_moe": transformer(trained=32_768, topk_prob=False),
    "zamba": zamba,
    "zamba2": zamba2,
}
