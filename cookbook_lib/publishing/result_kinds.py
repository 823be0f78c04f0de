"""What the files in `docs/data` hold, for the page that filters them."""

from dataclasses import dataclass

Column = tuple[str, str, str]  # what it says, where it is in a row, its unit
TIME, RATE = ("time", "seconds.median", "s"), ("rate", "flops_per_second", "FLOP/s")
TOKENS, SHARE = ("tokens", "tokens", ""), ("of the roofline", "roofline", "%")
MESSAGE, RANKS, SENT = ("message", "nbytes", "B"), ("ranks", "ranks", ""), ("sent", "sent", "B")
SEED, CODE, PROSE = ("seed", "seed", ""), ("loss on code", "code", ""), ("on prose", "prose", "")
COMM = "cookbook bench comm --op all --devices 4"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a file holds. name: the key of a block or an op; by: further keys that tell lines of
    the plot apart; columns: the first is the plot's x and the last its y."""

    title: str
    name: str
    command: str
    columns: tuple[Column, ...]
    by: tuple[str, ...] = ()


KINDS = {
    "blocks": Kind(
        title="Blocks beside their references",
        name="block",
        command="cookbook bench block mamba1 mamba2 --tokens 4096 --against transformers",
        by=("pass",),
        columns=(TOKENS, RATE, SHARE, TIME),
    ),
    "crossovers": Kind(
        title="Mixers against length",
        name="block",
        command="cookbook bench block attention --d-model 512 --tokens 256 512 1024",
        by=("pass",),
        columns=(("length", "tokens+context", ""), TOKENS, RATE, SHARE, TIME),
    ),
    "model_blocks": Kind(
        title="A model, block by block",
        name="part",
        command="cookbook bench block --model zamba2-1.2b --tokens 128",
        by=("model", "pass"),
        columns=(TOKENS, RATE, ("uses", "uses", ""), TIME),
    ),
    "gemms": Kind(
        title="Products of matrices",
        name="benchmark",
        command="cookbook bench gemm --model zamba2-2.7b --vary d_model --near 2560 --tokens 256",
        by=("layout",),
        columns=(("n", "n", ""), ("m", "m", ""), ("k", "k", ""), TIME, SHARE, RATE),
    ),
    "memory": Kind(
        title="Memory of a training step",
        name="model",
        command="cookbook bench memory",
        columns=(
            ("predicted", "predicted.total", "B"),
            TOKENS,
            ("layers", "layers", ""),
            ("predicted / measured", "ratio", ""),
            ("measured", "measured.total", "B"),
        ),
    ),
    "decoding": Kind(
        title="Decoding beside transformers",
        name="model",
        command="cookbook bench generate",
        by=("kind", "width"),
        columns=(
            ("context", "context", ""),
            ("batch", "batch", ""),
            ("cache", "cache_bytes", "B"),
            ("times as fast", "times_as_fast.median", ""),
            ("time of a step", "seconds.ours.median", "s"),
        ),
    ),
    "links": Kind(
        title="Collectives over links of a known rate",
        name="op",
        command=COMM,
        by=("ranks", "rate", "uplink"),
        columns=(MESSAGE, RANKS, TIME, ("algbw", "algbw", "B/s"), ("busbw", "busbw", "B/s")),
    ),
    "wires": Kind(
        title="Bytes that collectives send",
        name="op",
        command=COMM,
        columns=(MESSAGE, RANKS, SENT),
    ),
    "tree_attention": Kind(
        title="Attention to keys on several ranks",
        name="method",
        command="cookbook bench decode --method tree-fused,ring-kv --devices 4 --context 64Ki",
        by=("p", "rate", "uplink"),
        columns=(("keys", "s", ""), ("ranks", "p", ""), SENT, ("steps", "steps", ""), TIME),
    ),
    "annealing": Kind(
        title="Ends of training runs",
        name="variant",
        command="cookbook train anneal --out rows.jsonl",
        columns=(SEED, CODE, PROSE),
    ),
    "tasks": Kind(
        title="Tasks that need memory",
        name="task",
        command="cookbook train tasks --out rows.jsonl",
        by=("model",),
        columns=(
            SEED,
            ("parameters", "params", ""),
            ("state", "state_bytes", "B"),
            ("steps", "budget", ""),
            ("accuracy", "accuracy", "%"),
        ),
    ),
    "training": Kind(
        title="Hybrid, transformer, Mamba-2 and ablations, trained",
        name="model",
        command="cookbook train compare --out rows.jsonl",
        by=("experiment", "equal"),
        columns=(
            SEED,
            ("parameters", "spec.params", ""),
            TOKENS,
            ("highest rate", "rate", ""),
            CODE,
            PROSE,
        ),
    ),
}
