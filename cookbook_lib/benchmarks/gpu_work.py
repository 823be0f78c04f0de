"""What `make gpu` wants itself: ceilings, products of matrices, memory, and the tests."""

import re
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from pathlib import Path
from tempfile import TemporaryDirectory

from cookbook_lib.benchmarks.ceilings import ceilings
from cookbook_lib.benchmarks.gemm import case as gemm_case
from cookbook_lib.benchmarks.gemm import timed
from cookbook_lib.benchmarks.sweep import Row
from cookbook_lib.benchmarks.timing import Stop
from cookbook_lib.benchmarks.wanted import NOTHING, Case, Here, Wanted
from cookbook_lib.calculators import presets
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.varied import varied

TESTS = Path(__file__).parents[2] / "tests"
FF = (10880, 10912, 10922, 10944, 11008)  # around 8/3 of 4096
SWEEPS = (  # model, size, values
    ("zamba2-2.7b", "d_model", (2304, 2432, 2496, 2560, 2624, 2688, 2816)),
    ("mamba2-2.7b", "d_model", (2304, 2432, 2496, 2560, 2624, 2688, 2816)),
    ("mamba2-2.7b", "vocab", (50257, 50264, 50280, 50288, 50304, 50432)),
    ("mamba2-2.7b", "d_state", (64, 96, 128, 160, 256)),
    ("mamba2-2.7b", "headdim", (32, 64, 128)),
    ("zamba2-2.7b", "n_heads", (30, 31, 32, 33, 34)),
)


def roofs(here: Here) -> Wanted:
    """The two ceilings of a roofline, for each dtype."""

    def run(case: Case) -> Row:
        found = ceilings(here.device, case["dtype"])
        parts = {"matmul": found.matmul.json(), "copy": found.copy.json()}
        rates = {"flops_per_second": found.flops, "bytes_per_second": found.bandwidth}
        return {"outcome": "measured", **rates, **parts}

    dtypes = ("fp32",) if here.tiny else ("bf16", "fp16", "fp32")
    return Wanted(cases=[{"benchmark": "ceilings", "dtype": d} for d in dtypes], run=run)


def matmuls(here: Here) -> Wanted:
    """The two shapes of a SwiGLU around 8/3 of its width, then the sweeps of models."""
    top = {}

    def run(case: Case) -> Row:
        dtype = case["dtype"]
        if dtype not in top:  # once in each run: the roofline of the device as it is now
            top[dtype] = ceilings(here.device, dtype)
        return timed(case, device=here.device, stop=Stop(seconds=0.3), top=top[dtype])

    cases = [*swiglu(), *swept_shapes()]
    if here.tiny:
        small = {"m": 32, "n": 32, "dtype": "fp32"}
        cases = [case | small | {"k": 32 + i} for i, case in enumerate(cases[:3])]
    return Wanted(cases=list({str(case): case for case in cases}.values()), run=run)


def swiglu(d_model: int = 4096, tokens: int = 4096) -> list[Case]:
    """The products of a SwiGLU, and the one that stas00/ml-engineering's script times.

    That is `swiglu-maf-bench.py` at 168be203: fp16, four products, the width of the MLP summed up.
    """
    base = {"benchmark": "gemm"}
    theirs = {"layout": "kn", "dtype": "fp16"}
    ours = {"layout": "nk", "dtype": "bf16"}
    found = []
    for d_ff in FF:
        found += [
            base | {"count": 4, "m": d_model, "n": d_model, "k": d_ff} | theirs,
            base | {"count": 1, "m": tokens, "n": d_ff, "k": d_model} | ours,
            base | {"count": 1, "m": tokens, "n": d_model, "k": d_ff} | ours,
        ]
    return found


def swept_shapes(tokens: int = 4096, dtype: str = "bf16") -> list[Case]:
    """The shapes of all sweeps; those that two of them share come twice."""
    return [
        gemm_case(use.product, dtype)
        for model, size, values in SWEEPS
        for uses in varied(presets.preset(model), size, values, Run(l=tokens)).values()
        for use in uses
    ]


MODELS = (  # model, layers (the last three have no more), tokens, dtype
    ("mamba-130m", 6, 1024, "fp32"),
    ("mamba2-130m", 6, 1024, "bf16"),
    ("zamba2-1.2b", 7, 256, "fp32"),
    ("mamba2-780m", 48, 1024, "bf16"),
    ("zamba2-1.2b", 38, 1024, "bf16"),
    ("zamba2-2.7b", 54, 1024, "bf16"),
)


def steps(here: Here) -> Wanted:
    """Training steps whose memory was predicted: `cookbook bench memory`."""
    from cookbook_lib.benchmarks.memory import step

    def run(case: Case) -> Row:
        return {"outcome": "measured", **step(**case, device=here.device)}

    rest = {"batch": 1, "optimizer": "adamw"}
    keys = ("model", "layers", "tokens", "dtype")
    cases = [dict(zip(keys, model, strict=True)) | rest for model in MODELS]
    return Wanted(cases=[cases[0] | {"layers": 1, "tokens": 16}] if here.tiny else cases, run=run)


def tests(here: Here) -> Wanted:
    """The tests that need a GPU, a file each; on a CPU they skip themselves."""
    import pytest  # noqa: F401 (without it this part is left out)

    files = sorted(p.name for p in TESTS.glob("test_*.py") if "\n@pytest.mark.gpu" in p.read_text())
    return Wanted(cases=[{"benchmark": "tests", "file": f} for f in files], run=run_tests)


def run_tests(case: Case, seconds: float = 110.0) -> Row:
    """Runs pytest; raises what failed, and which package the tests lack: neither is data."""
    begun = time.monotonic()
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        ask = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={report}"]
        ask += ["-o", "addopts=", "-o", "filterwarnings=default", "-p", "no:cacheprovider"]
        try:
            done = subprocess.run(
                [*ask, str(TESTS / case["file"])],
                cwd=TESTS.parent,
                timeout=seconds,
                capture_output=True,
                text=True,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"no end after {seconds:.0f} s") from None
        found = list(xml.parse(report).iter("testcase")) if report.exists() else []
    if lacks := re.search(r"ModuleNotFoundError: No module named '([^']+)'", done.stdout):
        raise ModuleNotFoundError(lacks[0], name=lacks[1])
    if done.returncode or not found:
        raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-2000:]}")
    skipped = sum(test.find("skipped") is not None for test in found)
    counts = {"passed": len(found) - skipped, "skipped": skipped}
    outcome = "passed" if counts["passed"] else NOTHING
    return {"outcome": outcome, **counts, "took": time.monotonic() - begun}
