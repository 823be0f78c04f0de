"""Dtypes by the names that specs and commands use; PyTorch is all that this module needs."""

import torch

DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
