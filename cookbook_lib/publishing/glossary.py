"""The words of the field that the book uses: a page that lists them, and what a reader sees when
the pointer rests on one."""

TERMS = {  # as it stands in the text -> what it means, in one sentence
    "ABAB": "Two shared blocks used in turn, as in Zamba2-2.7B.",
    "algbw": "Algorithm bandwidth: bytes of the message divided by the time, as a caller sees it.",
    "BPE": "Byte pair encoding: a tokenizer that merges the pairs that occur most often.",
    "busbw": "Bus bandwidth: algbw times a factor for each collective, so that it can be compared "
    "with the rate of a link whatever the number of ranks.",
    "CP": "Context parallelism: the tokens of a sequence are split over ranks.",
    "DDP": "Distributed data parallelism: every rank holds the model, and gradients are averaged.",
    "DP": "Data parallelism: ranks hold the same weights and see different sequences.",
    "EP": "Expert parallelism: the experts of a layer are dealt out to ranks.",
    "FLOP": "One addition or one multiplication of numbers; a multiply-add is two.",
    "FLOPs": "A count of additions and multiplications, not a rate; the rate is FLOP/s.",
    "FSDP": "Fully sharded data parallelism: ranks also split weights, gradients and states.",
    "GEMM": "General matrix multiply: the product of two dense matrices.",
    "GQA": "Grouped-query attention: several query heads read one head of keys and values.",
    "HBM": "High-bandwidth memory: the memory of a GPU outside its chip.",
    "KV": "Keys and values: what attention keeps of each token.",
    "LoRA": "Low-rank adaptation: a product of two thin matrices added to a weight.",
    "LSH": "Locality-sensitive hashing: similar documents fall into the same bucket.",
    "MFU": "Model FLOPs utilisation: the model's FLOPs per second, divided by the chip's peak.",
    "MHA": "Multi-head attention: each query head has keys and values of its own.",
    "MLA": "Multi-head latent attention: keys and values are expanded from one small latent.",
    "MLP": "Multi-layer perceptron: two or three matrices that mix the channels of a token.",
    "MoE": "Mixture of experts: a router sends each token to a few of many MLPs.",
    "MQAR": "Multi-query associative recall: a task that asks for values by their keys.",
    "PP": "Pipeline parallelism: consecutive layers lie on different ranks.",
    "RMSNorm": "A norm that divides by the root of the mean square, without a mean or a bias.",
    "RoPE": "Rotary position embedding: queries and keys are rotated by their position.",
    "SP": "Sequence parallelism: between the blocks, tensor parallel ranks split the tokens.",
    "SSD": "State space duality: Mamba-2's recurrence written as products of matrices.",
    "SSM": "State-space model: a layer that folds the past into a state of fixed size.",
    "SwiGLU": "An MLP whose hidden layer is multiplied by a gate with SiLU.",
    "TP": "Tensor parallelism: the channels of each block are split over ranks.",
    "TPOT": "Time per output token, after the first.",
    "TTFT": "Time to the first token: that of the prefill.",
    "WSD": "Warm-up, stable, decay: a learning rate that stays constant until a short decay.",
    "ZeRO": "Data parallel ranks split optimizer states (1), gradients (2) and weights (3).",
}


def page() -> str:
    """The list for the page, in the order of the alphabet."""
    ordered = sorted(TERMS.items(), key=lambda item: item[0].lower())
    return "\n\n".join(f"`{term}`\n:   {meaning}" for term, meaning in ordered)


def with_hovers(markdown: str) -> str:
    """The page with the meaning of each word that stands in it, for Markdown's abbreviations."""
    used = [f"*[{term}]: {meaning}" for term, meaning in TERMS.items() if term in markdown]
    return "\n".join([markdown, "", *used, ""])
