"""Time ways to attend to spread keys in JAX, over devices of one process, each checked."""

from itertools import groupby
from operator import itemgetter
from typing import Any

import jax
import numpy as np
import torch
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cookbook_lib.communication.jax_ranks import AXIS, joined
from cookbook_lib.communication.member import Member
from cookbook_lib.communication.sampling import sampled
from cookbook_lib.decoding.shards import cut
from cookbook_lib.decoding.tree_costs import Shape
from cookbook_lib.decoding.tree_jax import PADDING, Keys, program
from cookbook_lib.decoding.tree_rows import numbers, prove, query, reference, row

DTYPES = {"bf16": jax.numpy.bfloat16, "fp32": np.float32, "fp64": np.float64}


def sweep(member: Member, todo: list[list], dtype: str, seconds: float) -> list[dict[str, Any]]:
    """A row for each (method, shape) of `todo`."""
    rows = []
    jax.config.update("jax_enable_x64", dtype == "fp64")
    with joined(member, todo[0][1]["p"]) as mesh:
        for sizes, group in groupby(todo, key=itemgetter(1)):
            x = Shape(**sizes)
            if x.s % x.p:
                raise ValueError(f"context is {x.s}, expected a multiple of the {x.p} devices")
            lengths = cut(x.s, x.p)
            with member.doing(f"full attention over {x.s:,} tokens"):
                due = reference(x, dtype, lengths)
                parts = [numbers(x, dtype, r, n) for r, n in enumerate(lengths)]
                k, v = (torch.cat([p[i] for p in parts]) for i in (0, 1))
                cutting = NamedSharding(mesh, P(AXIS))
                at = NamedSharding(mesh, P(None, AXIS))
                keys = Keys(
                    jax.device_put(of(k, dtype), cutting),
                    jax.device_put(of(v, dtype), cutting),
                    jax.device_put(np.arange(x.s, dtype=np.int32)[None], at),
                )
                q = of(query(x, dtype), dtype)
                seen = np.full((1, x.l), PADDING - 1, np.int32)
            for name, _ in group:
                with member.doing(f"{name} over {x.s:,} tokens"):
                    run, last = program(name, mesh, x.k**-0.5), {}

                    def call(run=run, last=last, q=q, seen=seen, keys=keys) -> None:
                        last["out"] = run(q, seen, keys).block_until_ready()

                    timing = sampled(call, lambda: None, lambda: None, lambda t: t, seconds)
                    got = torch.from_numpy(np.asarray(last["out"]).astype(np.float64))
                    error = prove(got, due, dtype, name)  # of the last call that was timed
                rows.append(row(name, "jax cpu", x, dtype, timing, error))
                member.emit(rows[-1])
    return rows


def of(x: torch.Tensor, dtype: str) -> np.ndarray:
    return x.to(torch.float64 if dtype == "fp64" else torch.float32).numpy().astype(DTYPES[dtype])
