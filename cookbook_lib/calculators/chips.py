"""Chips as data: what a vendor promises for dense products, memory, links and power.

Three traps are avoided. The large print of a data sheet is often the rate with 2:4 sparsity, twice
the dense one: 1979 TFLOP/s of bf16 for an H100. GeForce cards multiply fp16 twice as fast if they
also add in fp16; the rates here add in fp32. And a link's large number counts both directions;
here a rate is what one GPU sends while it receives as much.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

NODE = 8  # GPUs that a fast link connects, in DGX and HGX servers and in AMD's MI300X platform


@dataclass(frozen=True, kw_only=True)
class Chip:
    """Peak rates of one chip: FLOP/s, bytes/s, bytes, watts; None for what is not stated.

    flops: dense products of bf16 or fp16 with sums in fp32. `fp8`, `int8`, `fp4`, `int4`: dense
    products in that dtype where it is faster. link: bytes/s of each GPU, one way, to the others in
    its node of `node` GPUs. network: the same to other nodes. link_delay, network_delay: seconds
    that each message takes beside its bytes; 0 where only rates are known. power: the limit of the
    whole board.
    estimate: what is not the vendor's own number; empty if all are.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float
    source: str
    fp8: float | None = None
    int8: float | None = None
    fp4: float | None = None
    int4: float | None = None
    power: int | float | None = None
    link: float | None = None
    network: float | None = None
    link_delay: float = 0.0
    network_delay: float = 0.0
    node: int = 1
    estimate: str = ""

    @property
    def ridge(self) -> float:
        """FLOPs per byte at which arithmetic begins to take longer than memory traffic."""
        return self.flops / self.bandwidth

    def rate(self, dtype: str) -> float:
        """FLOP/s of products in a dtype; that of bf16 where no faster one is stated."""
        return getattr(self, dtype, None) or self.flops


H100 = Chip(
    name="H100 SXM",
    flops=989.4e12,
    fp8=1978.9e12,
    int8=1978.9e12,  # TOP/s
    bandwidth=3.35e12,
    memory=80e9,
    power=700,
    link=450e9,  # NVLink 4, 900e9 in both directions
    network=50e9,  # DGX H100: one 400 Gb/s ConnectX-7 for each GPU
    node=NODE,
    source="https://www.nvidia.com/en-us/data-center/h100/ (2024-03)",
)

CHIPS: Mapping[str, Chip] = MappingProxyType(
    {
        "b200": Chip(
            name="B200 SXM",
            flops=2250e12,
            fp8=4500e12,
            int8=4500e12,  # TOP/s
            fp4=9000e12,
            bandwidth=7.67e12,  # bus of 7680 bits at 3996 MHz: github.com/pytorch/ao/pull/4002
            memory=180e9,
            power=1000,  # mlcommons/inference_results_v6.0, Nebius/systems/nebius_b200_n1.json
            link=900e9,  # NVLink 5, 1800e9 in both directions
            network=50e9,  # DGX B200: one 400 Gb/s ConnectX-7 for each GPU
            node=NODE,
            source="https://www.nvidia.com/en-us/data-center/hgx/ (2025-03), at 1000 W",
            estimate="bandwidth from what the driver reports; sheets say 7.7 to 8 TB/s",
        ),
        "h200": Chip(
            name="H200 SXM",
            flops=H100.flops,
            fp8=H100.fp8,
            int8=H100.int8,
            bandwidth=4.8e12,
            memory=141e9,
            power=700,
            link=H100.link,
            network=H100.network,
            node=NODE,
            source="https://www.nvidia.com/en-us/data-center/h200/ (2024-11)",
        ),
        "h100": H100,
        "a100": Chip(
            name="A100 SXM 80GB",
            flops=312e12,
            int8=624e12,  # TOP/s
            int4=1248e12,  # TOP/s
            bandwidth=2.039e12,
            memory=80e9,
            power=400,
            link=300e9,  # NVLink 3, 600e9 in both directions
            network=25e9,  # DGX A100: one 200 Gb/s ConnectX-6 for each GPU
            node=NODE,
            source="https://www.nvidia.com/en-us/data-center/a100/ (2022-06)",
        ),
        "mi300x": Chip(
            name="MI300X",
            flops=1307.4e12,
            fp8=2614.9e12,
            int8=2614.9e12,  # TOP/s
            bandwidth=5.3e12,
            memory=192e9,
            power=750,
            link=448e9,  # 7 Infinity Fabric links of 64e9 each way, one to each other GPU
            network=50e9,  # one 400 Gb/s card for each GPU
            node=NODE,
            source="https://www.amd.com/en/products/accelerators/instinct/mi300/mi300x.html "
            "(2023-12)",
            estimate="network: what clusters of it usually have, not a part of the chip",
        ),
        "l40s": Chip(
            name="L40S",
            flops=362.05e12,
            fp8=733e12,
            int8=733e12,  # TOP/s
            int4=733e12,  # TOP/s; no faster than int8
            bandwidth=864e9,
            memory=48e9,
            power=350,
            link=32e9,  # PCIe 4 x16, 64e9 in both directions
            node=NODE,
            source="https://www.nvidia.com/en-us/data-center/l40s/ (2023-08)",
        ),
        "rtx4090": Chip(
            name="RTX 4090",
            flops=165.2e12,  # with sums in fp32; 330.3e12 with sums in fp16
            fp8=330.3e12,  # with sums in fp32
            int8=660.6e12,  # TOP/s
            int4=1321.2e12,  # TOP/s
            bandwidth=1008e9,
            memory=24e9,
            power=450,
            link=32e9,  # PCIe 4 x16, 64e9 in both directions; through the host's memory
            node=NODE,
            source="NVIDIA Ada GPU Architecture white paper v2.1 (2023), appendix A, table 2",
        ),
        "m4max": Chip(
            name="Apple M4 Max, 40-core GPU",
            flops=18.4e12,  # 40 cores x 128 multiply-adds x 1.8 GHz; fp16 is no faster than fp32
            bandwidth=546e9,
            memory=128e9,
            source="https://www.apple.com/newsroom/2024/10/ (2024-10-30)",
            estimate="FLOP/s: cores as Apple says, units of a core from github.com/philipturner/"
            "metal-benchmarks, the clock as reported; no power stated",
        ),
        "phone": Chip(
            name="Snapdragon 8 Gen 3, 12 GB",
            flops=4e12,  # its GPU; 1.5e12 is reached: 121 tokens/s of a 6.2 B model in the prefill
            bandwidth=76.8e9,  # LPDDR5X, 64 bits at 9600 MT/s
            memory=12e9,  # of the phone, which also runs everything else
            source="https://www.qualcomm.com/snapdragon-8-gen-3 product brief (2023-10)",
            estimate="FLOP/s: a round number above what arXiv:2403.20041 reaches; no power stated",
        ),
        "cpu": Chip(
            name="two CPU cores",
            flops=192e9,  # 2 cores x 2 units x 8 fp32 x 2 FLOP x 3 GHz; bf16 is no faster (AVX2)
            bandwidth=51.2e9,  # DDR4-3200, 2 channels of 8 bytes (JEDEC JESD79-4)
            memory=16e9,
            source="a generic laptop or a runner in the cloud",
            estimate="no product: computed from cores, clock and channels",
        ),
    }
)


def chip(name: str) -> Chip:
    """The chip of this name; `ValueError` with the names that there are."""
    try:
        return CHIPS[name.lower()]
    except KeyError:
        raise ValueError(f"chip is {name!r}, expected one of {', '.join(CHIPS)}") from None


NAMED = {  # what drivers call them: files in vllm-project/vllm, layers/fused_moe/configs
    "NVIDIA B200": "b200",
    "NVIDIA H200": "h200",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA A100-SXM4-80GB": "a100",
    "NVIDIA L40S": "l40s",
    "NVIDIA GeForce RTX 4090": "rtx4090",
    "AMD Instinct MI300X": "mi300x",
}


def named(device: str) -> str | None:
    """The chip that a driver calls so; None for a CPU, and for a GPU that is not in the table."""
    return NAMED.get(device)
