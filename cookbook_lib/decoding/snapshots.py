"""Going back: keys and values need a length, a state needs a copy from that time.

A slot of a KV cache that lies beyond the length is never looked at, so a shorter length is all that
it takes to forget tokens. A recurrent state holds a sum over all tokens: h' = a h + x B can be
solved for h in exact arithmetic, but a decay a near 0 has lost it. Only a copy brings it back.
"""

from cookbook_lib.blocks.cache import Cache, Snapshot


def snapshot(cache: Cache) -> Snapshot:
    """Remember this moment: a copy of what the next token replaces. What grows needs none."""
    uniform(cache, "a snapshot")
    copies = {key: t.clone() for key, t in cache.tensors() if key not in cache.slots}
    cache.marks.append(Snapshot(cache.length, copies))
    return cache.marks[-1]


def restore(cache: Cache, mark: Snapshot) -> None:
    """Go back to a moment of this cache; snapshots taken since then are void."""
    if not any(mark is known for known in cache.marks):
        raise ValueError(
            f"the snapshot of {mark.length} tokens is not of this cache's past, expected one taken "
            "since the last moment that it went back to"
        )
    for (use, name), copy in mark.replaced.items():
        cache.states[use][name].copy_(copy)
    while cache.marks[-1] is not mark:
        cache.marks.pop()
    shorten(cache, mark.length)


def rewind(cache: Cache, n: int) -> None:
    """Take back the last `n` tokens, exactly; `ValueError` where states have no snapshot there."""
    uniform(cache, "going back")
    if not 0 <= n <= cache.length:
        raise ValueError(f"n is {n}, expected 0 to the {cache.length} tokens that were seen")
    goal = cache.length - n
    marks = [mark for mark in cache.marks if mark.length <= goal]
    if not n or only_grows(cache):
        cache.marks = marks
        return shorten(cache, goal)
    if marks and marks[-1].length == goal:
        return restore(cache, marks[-1])
    near = f"restore that of {marks[-1].length} and read on" if marks else "read the prompt again"
    raise ValueError(
        f"n is {n}, expected a step back to a snapshot, as states keep no past: there is none of "
        f"{goal} tokens; {near}"
    )


def only_grows(cache: Cache) -> bool:
    """True if every tensor has a slot for each token: then a length is enough to go back."""
    return all(key in cache.slots for key, _ in cache.tensors())


def shorten(cache: Cache, length: int) -> None:
    cache.length = length
    if cache.valid is not None:
        cache.valid[:, length:] = True


def uniform(cache: Cache, what: str) -> None:
    if cache.lengths is not None:
        raise ValueError(f"rows have different lengths, expected one length for {what}")
