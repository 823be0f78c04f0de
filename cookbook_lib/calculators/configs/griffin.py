"""RecurrentGemma: two of Griffin's recurrent blocks, then attention to the last tokens."""

from itertools import cycle, islice

from cookbook_lib.calculators.configs.common import attention, layers, model
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.configs.llama import sizes
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import MLP, RGLRU

KINDS = {"recurrent": "m", "attention": "w"}
DEFAULT = ["recurrent", "recurrent", "attention"]


def recurrent_gemma(f: Fields) -> Model:
    """RecurrentGemma; its MLP is half as wide as `intermediate_size` says."""
    d, n = sizes(f, 2560, 26)
    heads = f.part("num_attention_heads", of=("hidden_size", d), default=10)
    d_rnn = f.nullable("lru_width", default=None)
    if (d_rnn or d) % heads:
        f.refuse_part("num_attention_heads", heads, ("lru_width", d_rnn or d))
    recurrent = RGLRU(
        d_model=d, n_heads=heads, d_rnn=d_rnn, d_conv=f.count("conv1d_width", default=4, low=2)
    )
    attn = attention(
        f,
        d,
        10,
        None,
        window=f.count("attention_window_size", "sliding_window", default=2048, low=2),
        qkv_bias=f.flag("attention_bias", default=False),
        out_bias=True,
    )
    d_ff = f.count("intermediate_size", default=3 * 2560, low=2) // 2
    mixers = {"m": {"temporal_block": recurrent}, "w": {"temporal_block": attn}}
    channels = [{"mlp_block": MLP(d_model=d, d_ff=d_ff, bias=True)}]
    letters = layers(d, mixers, channels, ("temporal_pre_norm", "channel_pre_norm"))
    period = f.words("block_types", "_block_types", among=KINDS) or [KINDS[x] for x in DEFAULT]
    pattern = "".join(islice(cycle(period), n))
    return model(f, d, pattern, letters, vocab=256000, tied=True, norm="model.final_norm")
