"""What a call launches on a GPU, captured as a CUDA graph and launched at once from then on."""

from collections.abc import Callable

import torch


def captured(run: Callable[[], object]) -> Callable[[], None]:
    """The replay of a call's kernels, on the same buffers each time.

    It is warmed up on a stream of its own, as PyTorch asks; NCCL makes its communicator then.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
