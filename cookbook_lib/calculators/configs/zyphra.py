"""Zyphra's hybrids: Zamba and Zamba2, whose transformer blocks are shared by several layers.

A shared block reads the stream and the embeddings side by side, and its output goes through a
linear of the layer's own into that layer's Mamba: arXiv:2405.16712 and arXiv:2411.15242. Every use
of a shared block has a KV cache of its own. LoRA pairs are counted where they are used, as
transformers allocates them; Zyphra's own code allocates one for every hybrid layer in each block.
"""

from string import ascii_uppercase

from cookbook_lib.calculators.configs.common import Letters, depth, mamba1, model
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Layout, Model
from cookbook_lib.calculators.specs import MLP, Attention, Linear, LoRA, Mamba2, Norm

AROUND = {"vocab": 32000, "tied": True, "norm": "model.final_layernorm"}
KINDS = {"mamba": "m", "linear_attention": "m", "hybrid": "h"}
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
    kinds = f.words("layers_block_type", length=layers, among=KINDS)
    if kinds is None:  # the first three are fixed, then the rule starts
        period = f.count("attn_layer_period", default=6)
        offset = f.count("attn_layer_offset", default=4, low=0)
        rest = ["h" if i % period == offset else "m" for i in range(layers - 3)]
        kinds = [*"mmh", *rest][:layers]
    attention = shared_attention(f, d, heads=16)
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=14848))
    letters = shared_letters("shared_transf", [attention], mlp, mamba, ())
    return model(f, d, "".join(kinds).replace("h", "A"), letters, **AROUND)


def zamba2(f: Fields) -> Model:
    """Some shared blocks used in turn, Mamba-2, and a LoRA for each use."""
    d = f.count("hidden_size", default=2560)
    layers = depth(f, default=54)
    expand = f.count("mamba_expand", default=2)
    nheads = f.part("n_mamba_heads", of=("mamba_expand * hidden_size", expand * d), default=8)
    mamba = Mamba2(
        d_model=d,
        d_state=f.count("mamba_d_state", "state_size", default=64),
        d_conv=f.count("mamba_d_conv", default=4),
        expand=expand,
        headdim=expand * d // nheads,
        ngroups=f.part("mamba_ngroups", of=("n_mamba_heads", nheads), default=1),
        chunk_size=f.count("chunk_size", default=256),
        bias=f.flag("add_bias_linear", default=False),
    )
    kinds = f.words("layers_block_type", length=layers, among=KINDS)
    hybrid = f.indices("hybrid_layer_ids", below=layers) if kinds is None else None
    if hybrid is not None:
        kinds = ["h" if i in hybrid else "m" for i in range(layers)]
    elif kinds is None:
        kinds = [*"m" + "mmmmmh" * 7 + "mmmmhmmmhmm"]
        if layers != len(kinds):
            f.fail("layers_block_type", f"a list of {layers} names, as num_hidden_layers says")
    blocks = f.count("num_mem_blocks", default=1)
    if blocks > len(ascii_uppercase):
        f.fail("num_mem_blocks", f"at most {len(ascii_uppercase)}")
    attention = shared_attention(f, d, heads=32)
    d_ff = f.nullable("intermediate_size", "ffn_hidden_size", default=None) or 4 * d
    mlp = MLP(d_model=d, d_ff=d_ff, fused=True, bias=mamba.bias)
    rank = f.count("adapter_rank", "lora_rank", default=128)
    lora = {"feed_forward.gate_up_proj_adapter_list": (d, mlp.d_gate_up)}
    if f.flag("use_shared_attention_adapter", "use_shared_attention_lora", default=False):
        outs = {"q": attention.d_q, "k": attention.d_kv, "v": attention.d_kv}
        lora |= {f"self_attn.linear_{x}_adapter_list": (2 * d, n) for x, n in outs.items()}
    adapters = tuple(
        (f"{name}.{{use}}", LoRA(d_in=d_in, rank=rank, d_out=d_out))
        for name, (d_in, d_out) in lora.items()
    )
    letters = shared_letters("shared_transformer", [attention] * blocks, mlp, mamba, adapters)
    turn = iter(range(layers))
    pattern = (ascii_uppercase[next(turn) % blocks] if k == "h" else "m" for k in kinds)
    return model(f, d, "".join(pattern), letters, **AROUND)


def shared_attention(f: Fields, d: int, heads: int) -> Attention:
    """Attention over [stream, embeddings]: twice as wide inside as the model."""
    heads = f.part("num_attention_heads", of=("2 * hidden_size", 2 * d), default=heads)
    kv = f.part_or_all("num_key_value_heads", of=("num_attention_heads", heads))
    dim = f.nullable("attention_head_dim", default=None) or 2 * d // heads
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
