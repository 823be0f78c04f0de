"""Zyphra's hybrids: Zamba and Zamba2, whose transformer blocks are shared by several layers.

A shared block reads the stream and the embeddings side by side, and its output goes through a
linear of the layer's own into that layer's Mamba: arXiv:2405.16712 and arXiv:2411.15242. Every use
of a shared block has a KV cache of its own. LoRA pairs are counted where they are used, as
transformers allocates them; Zyphra's own code allocates one for every hybrid layer in each block.
`tie_word_embeddings` says whether the head is the embedding; blocks are shared whatever it says
(transformers 5.23 would give each hybrid layer a copy where it is false; no published file does).
"""

from itertools import cycle
from string import ascii_uppercase

from cookbook_lib.calculators.configs.common import Letters, depth, mamba1, model
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Layout, Model
from cookbook_lib.calculators.specs import MLP, Attention, Linear, LoRA, Mamba2, Norm

AROUND = {"vocab": 32000, "tied": True, "norm": "model.final_layernorm"}
KINDS = {"mamba": "m", "linear_attention": "m", "m": "m", "hybrid": "h", "g": "h"}
OLD = ("state_size", "conv_dimension", "expansion_factor", "ffn_hidden_size", "lora_rank")
SEVERAL_HEADS = (
    ("x_proj.weight", "x_proj_weight"),
    ("dt_proj.weight", "dt_proj_weight"),
    ("dt_proj.bias", "dt_proj_bias"),
)


def zamba(f: Fields) -> Model:
    """One shared block, Mamba-1 with several heads, no LoRA."""
    d = f.count("hidden_size", default=3712)
    layers = depth(f, default=76)
    width = ("mamba_expand * hidden_size", f.count("mamba_expand", default=2) * d)
    nheads = f.part("n_mamba_heads", of=width, default=2)
    mamba = mamba1(f, d, nheads=nheads, names=SEVERAL_HEADS)
    kinds = f.words("layers_block_type", "layer_types", length=layers, among=KINDS)
    if kinds is None:  # the first three are fixed, then the rule starts
        f.count("num_hidden_layers", default=layers, low=3)
        period = f.count("attn_layer_period", default=6)
        offset = f.count("attn_layer_offset", default=4, low=0)
        kinds = [*"mmh", *("h" if i % period == offset else "m" for i in range(layers - 3))]
    attention = shared_attention(f, d, heads=16, kv=16)
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=14848))
    letters = shared_letters("shared_transf", [attention], mlp, mamba, ())
    return model(f, d, "".join(kinds).replace("h", "A"), letters, **AROUND)


def zamba2(f: Fields) -> Model:
    """Some shared blocks used in turn, Mamba-2, and a LoRA for each use."""
    d = f.count("hidden_size", default=2560)
    mamba = mamba2(f, d)
    blocks = f.count("num_mem_blocks", default=1, high=len(ascii_uppercase))
    attention = shared_attention(f, d, heads=32, kv=None)
    d_ff = f.nullable("intermediate_size", "ffn_hidden_size", default=None) or 4 * d
    mlp = MLP(d_model=d, d_ff=d_ff, fused=True, bias=mamba.bias)
    adapters = loras(f, mlp)
    letters = shared_letters("shared_transformer", [attention] * blocks, mlp, mamba, adapters)
    turn = cycle(ascii_uppercase[:blocks])
    pattern = "".join(next(turn) if k == "h" else "m" for k in kinds(f))
    return model(f, d, pattern, letters, **AROUND)


def kinds(f: Fields) -> list[str]:
    """Zamba2's list of layers, or the numbers of its hybrid layers; by default those of 2.7B."""
    layers = depth(f, default=54)
    names = ("layers_block_type", "layer_types", "layer_mapping")
    listed = f.words(*names, length=layers, among=KINDS)
    hybrid = f.indices("hybrid_layer_ids", below=layers)
    if hybrid is not None:
        numbered = ["h" if i in hybrid else "m" for i in range(layers)]
        if listed not in (None, numbered):
            f.fail("hybrid_layer_ids", f"the layers that {f.find(names)} calls hybrid")
        return numbered
    if listed is None and layers != 54:
        f.fail("layers_block_type", f"a list of {layers} names, as num_hidden_layers says")
    return listed or [*"m", *"mmmmmh" * 7, *"mmmmhmmmhmm"]


def mamba2(f: Fields, d: int) -> Mamba2:
    """Zamba2's Mamba-2. Old files give the size of a head (64 by default), newer ones how many."""
    expand = f.count("mamba_expand", "expansion_factor", default=2)
    inner = ("mamba_expand * hidden_size", expand * d)
    dim = f.nullable("mamba_headdim", default=None)
    if f.find(("n_mamba_heads",)) is None and (dim or f.find(OLD)):
        nheads = inner[1] // f.part("mamba_headdim", of=inner, default=64)
    else:
        nheads = f.part("n_mamba_heads", of=inner, default=8)
    if dim not in (None, inner[1] // nheads):
        f.fail("mamba_headdim", f"{inner[0]} / n_mamba_heads, which is {inner[1] // nheads}")
    return Mamba2(
        d_model=d,
        d_state=f.count("mamba_d_state", "state_size", default=64),
        d_conv=f.count("mamba_d_conv", "conv_dimension", default=4),
        expand=expand,
        headdim=inner[1] // nheads,
        ngroups=f.part("mamba_ngroups", of=("the number of Mamba heads", nheads), default=1),
        chunk_size=f.count("chunk_size", default=256),
        bias=f.flag("add_bias_linear", default=False),
    )


def loras(f: Fields, mlp: MLP) -> Layout:
    """A LoRA for each use: of gate and up, and of q, k and v if `use_shared_attention_adapter`."""
    d, rank = mlp.d_model, f.count("adapter_rank", "lora_rank", default=128)
    pairs = {}
    if f.flag("use_shared_block_lora", default=True):
        pairs["feed_forward.gate_up_proj_adapter_list"] = (d, mlp.d_gate_up)
    if f.flag("use_shared_attention_adapter", "use_shared_attention_lora", default=False):
        pairs |= {f"self_attn.linear_{x}_adapter_list": (2 * d, 2 * d) for x in "qkv"}
    return tuple(
        (f"{name}.{{use}}", LoRA(d_in=d_in, rank=rank, d_out=d_out))
        for name, (d_in, d_out) in pairs.items()
    )


def shared_attention(f: Fields, d: int, heads: int, kv: int | None) -> Attention:
    """Attention over [stream, embeddings]: twice as wide inside as the model."""
    if f.nullable("attention_hidden_size", default=None) not in (None, 2 * d):
        f.fail("attention_hidden_size", f"2 * hidden_size ({2 * d})")
    heads = f.count("num_attention_heads", default=heads)
    kv = f.part_or_all("num_key_value_heads", of=("num_attention_heads", heads), default=kv)
    dim = f.nullable("attention_head_dim", "head_dim", default=None)
    if dim is None:
        dim = 2 * d // f.part("num_attention_heads", of=("2 * hidden_size", 2 * d), default=heads)
    return Attention(d_model=d, d_in=2 * d, n_heads=heads, n_kv_heads=kv, head_dim=dim)


def shared_letters(
    shared: str, attention: list[Attention], mlp: MLP, mamba: Block, lora: Layout
) -> Letters:
    """`m` a Mamba layer; `A`, `B`, … the same behind the first, second, … shared block."""
    d, own = mlp.d_model, "model.layers.{i}"
    block = f"model.layers.{{first}}.{shared}"
    letters = [("m", ((f"{own}.input_layernorm", Norm(d_model=d)), (f"{own}.mamba", mamba)))]
    for letter, attn in zip(ascii_uppercase, attention, strict=False):
        layout = (
            (f"{block}.input_layernorm", Norm(d_model=2 * d)),
            (f"{block}.self_attn", attn),
            (f"{block}.pre_ff_layernorm", Norm(d_model=d)),
            (f"{block}.feed_forward", mlp),
            *((f"{block}.{name}", x) for name, x in lora),
            (f"{own}.linear", Linear(d_in=d, d_out=d)),
            (f"{own}.mamba_decoder.input_layernorm", Norm(d_model=d)),
            (f"{own}.mamba_decoder.mamba", mamba),
        )
        letters.append((letter, layout))
    return tuple(letters)
