"""The one command line: `cookbook COMMAND …`, built by tyro from the signatures of the commands.

Exit code 0 on success; 2, with one line on standard error, for what the user got wrong.
"""

import io
import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, redirect_stderr
from functools import partial, wraps
from importlib import import_module
from inspect import signature
from types import UnionType
from typing import Any, Union, get_args, get_type_hints

COMMANDS: dict = {  # name -> module:function, or a group of further names
    "models": "cookbook_lib.commands.models:models",
    "cost": "cookbook_lib.commands.cost:cost",
    "memory": "cookbook_lib.commands.memory:memory",
    "train-time": "cookbook_lib.commands.train_time:train_time",
    "serve-cost": "cookbook_lib.commands.serve_cost:serve_cost",
    "plan": "cookbook_lib.commands.plan:plan",
    "lint": "cookbook_lib.commands.lint:lint",
    "scaling": "cookbook_lib.commands.scaling:scaling",
    "links": "cookbook_lib.communication.fitting:links",
    "phases": "cookbook_lib.commands.phases:phases",
    "tokens": "cookbook_lib.commands.tokens:tokens",
    "data": "cookbook_lib.commands.data:data",
    "generate": "cookbook_lib.commands.generate:generate",
    "train": {
        "run": "cookbook_lib.commands.train:train_run",
        "tasks": "cookbook_lib.training.experiments:train_tasks",
        "anneal": "cookbook_lib.training.annealing_runs:train_anneal",
        "compare": "cookbook_lib.training.comparison_runs:train_compare",
    },
    "bench": {
        "calculators": "cookbook_lib.benchmarks.calculators:bench_calculators",
        "block": "cookbook_lib.benchmarks.blocks:bench_block",
        "generate": "cookbook_lib.commands.bench_generate:bench_generate",
        "first-token": "cookbook_lib.commands.bench_first_token:bench_first_token",
        "split-k": "cookbook_lib.benchmarks.split_k:bench_split_k",
        "memory": "cookbook_lib.commands.bench_memory:bench_memory",
        "gemm": "cookbook_lib.commands.bench_gemm:bench_gemm",
        "gpu": "cookbook_lib.benchmarks.gpu:gpu",
        "check": "cookbook_lib.benchmarks.check:bench_check",
        "dedup": "cookbook_lib.benchmarks.dedup:bench_dedup",
        "tokens": "cookbook_lib.benchmarks.tokens:bench_tokens",
        "comm": "cookbook_lib.communication.bench:bench_comm",
        "decode": "cookbook_lib.decoding.tree_bench:bench_decode",
        "train": "cookbook_lib.benchmarks.training:bench_train",
        "buckets": "cookbook_lib.benchmarks.buckets:bench_buckets",
        "overlap": "cookbook_lib.communication.overlap:bench_overlap",
        "layers": "cookbook_lib.benchmarks.layers:bench_layers",
    },
}


def main(argv: list[str] | None = None) -> None:
    """Run one command, as `cookbook` and as `python -m cookbook_lib`."""
    try:
        argv = sys.argv[1:] if argv is None else argv
        with begun(argv):
            parse(argv)()
        sys.stdout.flush()
    except ValueError as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        if not (extra := EXTRAS.get(error.name or "")):
            raise
        fail(f"this command needs {error.name}: pip install 'cookbook-lib[{extra}]'")
    except BrokenPipeError:  # `cookbook … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)


EXTRAS = {  # module -> its extra
    **dict.fromkeys(("torch", "einops", "jaxtyping", "safetensors", "tokenizers"), "blocks"),
    **dict.fromkeys(
        ("fsspec", "gigatoken", "numpy", "orjson", "pyarrow", "tiktoken", "zstandard"), "data"
    ),
    "jax": "communication",
    "matplotlib": "recipes",
    **dict.fromkeys(("mpi4py", "ray"), "test"),
}


BEGIN = {"tokens": "cookbook_lib.data.early:early"}  # command -> what begins with it


def begun(argv: list[str]) -> AbstractContextManager:
    """What a command begins while its arguments are read, which takes a tenth of a second."""
    module, _, name = BEGIN.get(next(iter(argv), ""), "contextlib:nullcontext").partition(":")
    return getattr(import_module(module), name)(argv)


def fail(line: str) -> None:
    sys.stderr.write("cookbook: " + " ".join(line.split()) + "\n")
    sys.exit(2)


def parse(argv: list[str]) -> Callable[[], None]:
    """The command with its arguments bound: nothing has run yet."""
    import tyro

    table, prog = COMMANDS, "cookbook"
    while argv and isinstance(table.get(argv[0]), dict):
        table, prog, argv = table[argv[0]], f"{prog} {argv[0]}", argv[1:]
    alone = argv[0] if argv and isinstance(table.get(argv[0]), str) else ""
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff)
    errors = io.StringIO()
    try:
        with redirect_stderr(errors):
            if alone:  # the others are not even imported
                name, said = f"{prog} {alone}", argv[1:]
                return tyro.cli(bound(table[alone]), prog=name, args=said, config=config)
            return tyro.extras.subcommand_cli_from_dict(
                {name: bound(target) for name, target in table.items()},
                prog=prog,
                description=__doc__.partition("\n")[0] if table is COMMANDS else None,
                args=argv,
                config=config,
            )
    except SystemExit as end:
        if end.code == 0:
            raise
        command = f"{prog} {alone}".rstrip()
        fail(f"{one_line(errors.getvalue()).rstrip('.')}; see `{command} --help`")


def bound(target: str | dict) -> Callable:
    """A command that returns itself with its arguments, so that parsing runs nothing."""
    if isinstance(target, dict):  # only listed by `--help`: a group's own name is followed

        def group() -> None: ...

        group.__doc__ = "A group of commands: " + ", ".join(target) + "."
        return group
    module, _, name = target.partition(":")
    command = getattr(import_module(module), name)

    @wraps(command)
    def bind(*args, **kwargs):
        return partial(command, *args, **kwargs)

    del bind.__wrapped__  # tyro would look behind these hints
    bind.__signature__ = signature(command)
    hints = get_type_hints(command, include_extras=True)
    bind.__annotations__ = {name: spelled(hint) for name, hint in hints.items()}
    return bind


def spelled(hint: Any) -> Any:
    """`X | Y` as `Union[X, Y]`: for the first, tyro imports typeguard, half of a command's start.

    The same holds for `list[X]` without a default.
    """
    return Union[get_args(hint)] if isinstance(hint, UnionType) else hint  # noqa: UP007


def one_line(box: str) -> str:
    """What tyro's error box says, without the box and its general advice.

    Where a terminal has only ASCII the box is two dashed lines.
    """
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()[1:]]
    rules = [i for i, line in enumerate(lines) if line and not line.strip("─-")]
    first, *later = [-1, *rules] if 0 not in rules else rules
    said = " ".join(lines[first + 1 : later[0] if later else None])
    return re.sub(r"\s+([.,])", r"\1", " ".join(said.split()))
