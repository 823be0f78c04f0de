"""`cookbook generate`: let a checkpoint write."""

import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated, Literal

import tyro

from cookbook_lib.commands.output import print_json


def generate(
    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_DIR")],
    prompt: str,
    max_tokens: int = 128,
    temperature: float = 0.7,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Go on from a prompt, printing the text as it is written.

    Args:
        model: a folder with config.json, *.safetensors and tokenizer.json
        prompt: what to go on from
        max_tokens: write at most so many tokens
        temperature: higher is more daring; 0 always takes the likeliest token
        top_k: choose among so many of the likeliest; 0 for all
        top_p: choose among the likeliest that together have this probability
        min_p: leave out what is less likely than this part of the likeliest
        seed: of the random choices
        dtype: of the weights; auto is what config.json says
        device: cpu, cuda, cuda:1
        json: print one JSON document at the end instead of text as it comes
    """
    import torch

    from cookbook_lib.blocks.cache import DTYPES
    from cookbook_lib.blocks.checkpoint import load_checkpoint
    from cookbook_lib.decoding import generation, text
    from cookbook_lib.decoding.sampling import Sampling

    how = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # the latter from a torch without CUDA
        raise ValueError(f"device is {device!r}, expected cpu or cuda, if there is one") from None
    tokenizer = text.load_tokenizer(model)
    loaded = load_checkpoint(model, DTYPES.get(dtype), device)
    given = torch.tensor([tokenizer.encode(prompt).ids], dtype=torch.long, device=device)
    new = generation.generate(loaded, given, max_tokens, how, seed=seed, stop=text.ends(model))

    times, ids = [perf_counter()], []

    def timed():
        for token in new:
            ids.append(token.item())
            times.append(perf_counter())
            yield ids[-1]

    written = ""
    for piece in text.pieces(tokenizer, timed()):
        written += piece
        if not json:
            print(piece, end="", flush=True)
    first, rest = times[1] - times[0], times[-1] - times[1]
    rate = (len(ids) - 1) / rest if len(ids) > 1 else None
    if json:
        return print_json(
            {
                "model": str(model),
                "prompt": prompt,
                "text": written,
                "prompt_tokens": given.shape[1],
                "tokens": ids,
                "seconds_to_first_token": first,
                "tokens_per_second": rate,
            }
        )
    print(flush=True)
    speed = f", then {rate:.1f} tokens/s" if rate else ""
    print(f"[{len(ids)} tokens; the first after {first:.2f} s{speed}]", file=sys.stderr)
