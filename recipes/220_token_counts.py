# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---
# %% [markdown]
# # How many tokens is that?
#
# **Goal.** Count the tokens of a folder of mixed and partly broken files, exactly and at the speed
# of the machine; say what a tokenizer makes of prose, code and other scripts; pack the tokens for
# training. **Needs** a CPU and about 20 seconds.
#
# The token is the unit of every budget: a training run is planned in tokens, paid in tokens and
# compared in tokens. But a token is what one tokenizer makes of one text. The same text has a
# different number of tokens with each tokenizer, and the same tokenizer needs more tokens for one
# language than for another.

# %%
import gzip
import json
import sysconfig
from importlib.metadata import distributions
from pathlib import Path
from tempfile import mkdtemp

import babel
import matplotlib.pyplot as plt
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers as hf

from cookbook_lib import plots
from cookbook_lib.calculators.presets import preset
from cookbook_lib.data.shards import Packed
from cookbook_lib.data.tokens import count
from cookbook_lib.plots import table

plots.use()

# %% [markdown]
# ## Run: a corpus that every machine has
#
# Prose is what the installed Python packages say about themselves. Code is Python's own library.
# For other scripts there are the names of the world's countries, which the Unicode Consortium
# keeps in many languages: the same content in each of them. Three folders, three formats.

# %%
about = {d.metadata.get_payload() or d.metadata["Description"] for d in distributions()}
prose = sorted(t for t in about if isinstance(t, str) and len(t) > 500)
stdlib = Path(sysconfig.get_paths()["stdlib"])
code = [p.read_text("utf-8") for p in sorted(stdlib.glob("*.py"))]
LANGUAGES = ["en", "de", "fr", "el", "ru", "ar", "he", "hi", "th", "zh", "ja", "ko"]
places = [c for c in babel.Locale("en").territories if c.isalpha()]
places = [c for c in places if all(c in babel.Locale(lang).territories for lang in LANGUAGES)]
names = {lang: "\n".join(babel.Locale(lang).territories[c] for c in places) for lang in LANGUAGES}

folder = Path(mkdtemp())
for source in ("prose", "code", "names"):
    (folder / source).mkdir()
pq.write_table(pa.table({"text": prose}), folder / "prose/packages.parquet")
lines = [json.dumps({"text": t}) + "\n" for t in code]
(folder / "code/stdlib.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode()))
rows = [json.dumps({"text": t, "language": lang}) for lang, t in names.items()]
(folder / "names/countries.jsonl").write_text("\n".join(rows))
print(f"{len(prose)} descriptions, {len(code)} modules, {len(places)} countries")

# %% [markdown]
# A tokenizer of the kind that GPT-2 and Llama 3 use: byte-level BPE. It is trained here, on every
# second text of the prose and the code, with four sizes of vocabulary. A tokenizer trained for more
# merges begins with the same merges, so the larger ones only go further.

# %%
SIZES = [512, 2048, 8192, 32768]


def trained(size):
    tokenizer = hf.Tokenizer(hf.models.BPE())
    tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hf.decoders.ByteLevel()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(hf.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(prose[::2] + code[::2], trainer)
    path = folder / f"{size}.tokenizer"
    tokenizer.save(str(path))
    return str(path)


paths = {size: trained(size) for size in SIZES}
report = count([str(folder)], paths[8192])
table(
    {"source": s} | {k: r[k] for k in ("documents", "tokens", "bytes")}
    for s, r in report.by_source.items()
)

# %% [markdown]
# One call reads all three formats. On the command line it is
#
# ```bash
# cookbook tokens corpus/ --tokenizer tokenizer.json --workers 2
# ```
#
# Is it right? The referee is Hugging Face `tokenizers`, one text at a time.

# %%
referee = hf.Tokenizer.from_file(paths[8192])
by_hand = sum(len(referee.encode(t).ids) for t in [*prose, *code, *names.values()])
print(
    f"{report.tokens:,} tokens, by hand {by_hand:,}; the fast tokenizer served: {not report.slow}"
)
assert report.tokens == by_hand and report.whole

# %% [markdown]
# The count does not use that referee for all texts. It uses
# [gigatoken](https://github.com/marcelroed/gigatoken), which remembers how it cut each word, and
# compares the ids of a sample of every two megabytes with `tokenizers`. If one differs, the
# part is counted again with `tokenizers`, and the report says so.
#
# ## Look: what a token holds
#
# Bytes per token tell how far a tokenizer compresses. More vocabulary means longer tokens, but each
# step helps less, and every entry costs a row of the embedding and of the head.

# %%
reports = {size: count([str(folder)], path) for size, path in paths.items()}


def held(size, source):
    row = reports[size].by_source[source]
    return row["bytes"] / row["tokens"]


fig, ax = plt.subplots()
for source in ("prose", "code", "names"):
    ax.plot(SIZES, [held(size, source) for size in SIZES], "o-", label=source)
ax.set_xscale("log", base=2)
ax.set_xticks(SIZES, [f"{s:,}" for s in SIZES])
ax.set(xlabel="vocabulary", ylabel="bytes per token", ylim=(0, None))
ax.legend()
plots.show(
    fig, "Bytes per token grow with the vocabulary for prose and code, less for other scripts"
)

# %%
for source in ("prose", "code"):
    steps = [held(b, source) - held(a, source) for a, b in zip(SIZES, SIZES[1:], strict=False)]
    assert steps == sorted(steps, reverse=True) and steps[-1] > 0
d_model = dict(preset("zamba2-2.7b").before)["model.embed_tokens"].d_model
table(
    {
        "vocabulary": size,
        "bytes/token, prose": held(size, "prose"),
        "bytes/token, code": held(size, "code"),
        "embedding, parameters": size * d_model,
    }
    for size in SIZES
)

# %% [markdown]
# Half of the prose and code was in the training data; the names, in most of their languages, were
# not. Here is the same list of countries in each language, against English.

# %%
encoded = {lang: len(referee.encode(text).ids) for lang, text in names.items()}
factor = {lang: n / encoded["en"] for lang, n in encoded.items()}
size_of = {lang: len(t.encode()) / len(names["en"].encode()) for lang, t in names.items()}
fig, ax = plt.subplots()
at = range(len(LANGUAGES))
ax.bar([i - 0.2 for i in at], [factor[lang] for lang in LANGUAGES], 0.4, label="tokens")
ax.bar([i + 0.2 for i in at], [size_of[lang] for lang in LANGUAGES], 0.4, label="bytes")
ax.set_xticks(list(at), LANGUAGES)
ax.set(ylabel="times English", xlabel="language")
ax.grid(axis="x")
ax.legend()
plots.show(fig, "Tokens and bytes of the same country names in twelve languages, against English")
dearest = max(factor, key=factor.get)
print(f"the same names are {factor[dearest]:.1f} times as many tokens in {dearest} as in English")
assert factor[dearest] > 4 and all(factor[lang] >= 1 for lang in LANGUAGES)

# %% [markdown]
# A script that the tokenizer has not seen falls apart into bytes, and UTF-8 takes two bytes for a
# Greek, Cyrillic, Hebrew or Arabic letter and three for most others. A model with this tokenizer
# reads such text with a context that is shorter by that factor, and a reader pays by that factor.
#
# ## Nothing is lost
#
# Real folders are broken. Cut the compressed file in half, and put two bad lines into the names.

# %%
whole = (folder / "code/stdlib.jsonl.gz").read_bytes()
(folder / "code/stdlib.jsonl.gz").write_bytes(whole[: len(whole) // 2])
bad = '{"text": "cut off\n{"title": "no text"}\n'
(folder / "names/countries.jsonl").write_text(bad + "\n".join(rows))
broken = count([str(folder)], paths[8192])
for damage in broken.damage:
    print(str(damage).replace(str(folder), "corpus"))
print(f"{broken.documents} of {report.documents} documents are counted")
assert (broken.bad_records, broken.damaged_files) == (2, 1)
for source in ("prose", "names"):
    assert broken.by_source[source]["tokens"] == report.by_source[source]["tokens"]
assert 0 < broken.by_source["code"]["documents"] < len(code)

# %% [markdown]
# All that stands before the cut is counted, all that is lost is named with its place, and the
# command ends with exit code 3. `--strict` stops at the first.
#
# ## Packed for training
#
# With `--out` the ids are written as they are counted, in the format that Megatron's
# `IndexedDataset` reads: `.bin` holds the ids in a row, `.idx` where each document begins. A run
# that is killed goes on from the pieces it has finished, and ends with the same files.

# %%
(folder / "code/stdlib.jsonl.gz").write_bytes(whole)
out = folder / "packed"
packed = count([str(folder / "code")], paths[8192], out=out, end="<|endoftext|>")
shard = Packed(out / "shards/000000")
print(f"{len(shard)} documents, {len(shard.ids):,} ids, {shard.dtype}: {shard.ids.nbytes:,} bytes")
print(referee.decode(shard[0][:24].tolist()))
end = referee.token_to_id("<|endoftext|>")
assert len(shard) == len(code) and len(shard.ids) == packed.tokens + len(code)
assert [referee.decode(d[:-1].tolist()) for d in shard] == code
assert {int(d[-1]) for d in shard} == {end}

# %% [markdown] tags=["bug"]
# Zyphra's cookbook has a
# [script for this](https://github.com/Zyphra/zcookbook/blob/3f6b4590df9b79a78b704623eaccbfe59bbd30b9/calc/data/tokenize_and_count.py)
# (commit 3f6b459). It loads any dataset of the Hub with its own tokenizer in few lines, and saves
# the tokens. For each text it calls `tokenizer.encode(text)` and adds up the lengths. Which tokens
# does it count that are not in the text, and for which corpora does it matter?

# %% tags=["answer"]
from tokenizers.processors import TemplateProcessing  # noqa: E402

with_ends = hf.Tokenizer.from_file(paths[8192])
with_ends.post_processor = TemplateProcessing(
    single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", end)]
)
short = ["yes", "no", "maybe"]
rows = []
for name, texts in {"modules": code, "answers": short}.items():
    n = sum(len(with_ends.encode(t).ids) for t in texts)
    m = sum(len(with_ends.encode(t, add_special_tokens=False).ids) for t in texts)
    assert n - m == len(texts), "one token for each document"
    rows.append({"texts": name, "by encode": n, "in the text": m, "too many": f"{(n - m) / m:.2%}"})
table(rows)

# %% [markdown] tags=["answer"]
# `encode` adds what the tokenizer's post-processor adds, here one token a document: nothing for
# long documents, much for short ones. That may be what a training run sees; it is not the size of
# the text. `cookbook tokens` leaves them out, and `--special-tokens` counts them. (As published,
# the script also ends in a `KeyError`, because `load_dataset` without `split` gives a dictionary of
# splits, and the sum asks that dictionary for `n_tokens`.)

# %% [markdown]
# ## How much text is a budget?
#
# Twenty tokens for each parameter is the rule that is read out of
# [arXiv:2203.15556](https://arxiv.org/abs/2203.15556). With bytes per token it becomes a size on
# disk. [Planning a run](390_planning.py) says what those tokens cost.

# %%
table(
    {
        "model": name,
        "tokens, 20 a parameter": (tokens := 20 * preset(name).params()),
        "GB of prose": tokens * held(8192, "prose") / 1e9,
        "GB of code": tokens * held(8192, "code") / 1e9,
    }
    for name in ("mamba2-130m", "zamba2-1.2b", "zamba2-7b")
)

# %% [markdown]
# ## Exercises
#
# **1.** Half of the prose and of the code was in the tokenizer's training data. Does it compress
# that half better than the other, and by how much?

# %% tags=["answer"]
halves = {}
for name, texts in {"prose": prose, "code": code}.items():
    for half, part in {"seen": texts[::2], "unseen": texts[1::2]}.items():
        nbytes = sum(len(t.encode()) for t in part)
        halves[name, half] = nbytes / sum(len(referee.encode(t).ids) for t in part)
for (name, half), value in halves.items():
    print(f"{name:6} {half:7} {value:.2f} bytes per token")
assert halves["code", "seen"] > halves["code", "unseen"]

# %% [markdown]
# **2.** Add the twelve languages to what the tokenizer is trained on. What happens to the factor of
# the dearest language, and what to the bytes per token of prose?

# %% tags=["answer"]
wide = hf.Tokenizer.from_file(paths[8192])
trainer = hf.trainers.BpeTrainer(
    vocab_size=8192,
    initial_alphabet=sorted(hf.pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
)
wide.train_from_iterator(prose[::2] + code[::2] + [t for t in names.values()] * 20, trainer)
now = {lang: len(wide.encode(t).ids) for lang, t in names.items()}
prose_bytes = sum(len(t.encode()) for t in prose)
prose_after = prose_bytes / sum(len(wide.encode(t).ids) for t in prose)
print(
    f"{dearest}: {factor[dearest]:.2f} times English before, {now[dearest] / now['en']:.2f} after"
)
print(f"prose: {held(8192, 'prose'):.2f} bytes per token before, {prose_after:.2f} after")
assert now[dearest] / now["en"] < factor[dearest] / 2

# %% [markdown] tags=["answer"]
# The factor was a choice, made with the training data of the tokenizer; and the vocabulary that the
# other scripts now take is missing elsewhere.
