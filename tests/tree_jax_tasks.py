"""What the processes of tests/test_tree_attention.py run in JAX: float64, against full softmax."""

import jax
import numpy as np
import torch
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tree_tasks import cases, cut, full, made

from cookbook_lib.communication.jax_ranks import AXIS, joined
from cookbook_lib.communication.member import Member
from cookbook_lib.decoding.tree_jax import METHODS, PADDING, Keys, program


def exact(member: Member, devices: int, only: list[str] | None = None) -> dict[str, float]:
    """The largest error of each method in each case; shards of one length, by padding."""
    jax.config.update("jax_enable_x64", True)
    found = {}
    with joined(member, devices) as mesh, member.doing("all cases"):
        p = mesh.size
        for name, case in cases(p).items():
            if only and name not in only:
                continue
            case = dict(case)
            lengths = case.pop("lengths", None) or cut(case["s"], p)
            causal, before = case.pop("causal", False), case.pop("before", 0)
            padding = case.pop("padding", 0)
            q, k, v = made(**case)
            first = case["s"] - case["l"] - before if causal else PADDING - 9
            q_at = torch.arange(first, first + case["l"])[None]
            k_at = torch.arange(case["s"])[None].repeat(case["b"], 1)
            if padding:
                k_at[1, -padding:] = PADDING
            due = full(q, k, v, None, q_at, k_at)
            padded = equal(k, v, k_at, lengths)
            replicated, cutting = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
            keys = Keys(
                put(padded[0], cutting),
                put(padded[1], cutting),
                put(padded[2], NamedSharding(mesh, P(None, AXIS))),
            )
            q_jax, at = put(q.numpy(), replicated), put(q_at.numpy(), replicated)
            for method in METHODS:
                out = program(method, mesh, q.shape[-1] ** -0.5)(q_jax, at, keys)
                got = np.asarray(out.addressable_shards[0].data)
                found[f"{method}, {name}"] = float(np.abs(got - due.numpy()).max())
    return found


def equal(k, v, at, lengths):
    """Every rank's part filled up to the longest."""
    most = max(lengths)
    out = [np.zeros((len(lengths) * most, *x.shape[1:])) for x in (k, v)]
    positions = np.full((len(at), len(lengths) * most), PADDING)
    start = 0
    for rank, length in enumerate(lengths):
        to, here = slice(rank * most, rank * most + length), slice(start, start + length)
        for new, old in zip(out, (k, v), strict=True):
            new[to] = old[here].numpy()
        positions[:, to] = at[:, here].numpy()
        start += length
    return *out, positions


def put(x, sharding):
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
