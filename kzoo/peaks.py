"""What devices can do at most, as their makers' data sheets say: operations, memory, network."""

import dataclasses

_TPU = "https://cloud.google.com/tpu/docs"


@dataclasses.dataclass(frozen=True)
class Peak:
    """One device: a graphics card, or a chip of a TPU.

    Attributes:
        name: part of the name that drivers give it.
        tflops: dense TFLOP/s in bfloat16 (T4 and V100: in float16).
        float32_tflops: those of multiplications of float32, as XLA computes them: in TF32 where there is such, on TPUs
            in bfloat16.
        bandwidth: GB/s of its memory.
        memory: GB (10⁹ bytes) of its memory.
        network: GB/s that it sends to others beside it, one way, over all its links.
        source: where it is from.
    """

    name: str
    tflops: float
    float32_tflops: float
    bandwidth: float
    memory: float
    network: float
    source: str


# the first whose name is part of a device's counts
PEAKS = (
    Peak("H100 PCIe", 756.0, 378.0, 2000, 80, 300, "NVIDIA H100 data sheet"),
    Peak("H100", 989.4, 494.7, 3350, 80, 450, "NVIDIA H100 data sheet"),
    Peak("H200", 989.4, 494.7, 4800, 141, 450, "NVIDIA H200 data sheet"),
    Peak("A100-SXM4-40GB", 312.0, 156.0, 1555, 40, 300, "NVIDIA A100 data sheet"),
    Peak("A100-PCIE-40GB", 312.0, 156.0, 1555, 40, 300, "NVIDIA A100 data sheet"),
    Peak("A100", 312.0, 156.0, 2039, 80, 300, "NVIDIA A100 data sheet"),
    Peak("L40S", 362.0, 183.0, 864, 48, 32, "NVIDIA L40S data sheet"),
    Peak("L4", 121.0, 60.0, 300, 24, 32, "NVIDIA L4 data sheet"),
    Peak("T4", 65.0, 8.1, 320, 16, 16, "NVIDIA T4 data sheet"),
    Peak("V100", 125.0, 15.7, 900, 32, 150, "NVIDIA V100 data sheet"),
    Peak("TPU v3", 123.0, 123.0, 900, 34.4, 328, f"{_TPU}/v3; links: doi:10.1145/3360307"),
    Peak("TPU v4", 275.0, 275.0, 1228, 34.4, 300, f"{_TPU}/v4; links: arXiv:2304.01433"),
    Peak("TPU v5 lite", 197.0, 197.0, 819, 17.2, 200, f"{_TPU}/v5e"),
    Peak("TPU v5", 459.0, 459.0, 2765, 102.0, 600, f"{_TPU}/v5p"),
    Peak("TPU v6 lite", 918.0, 918.0, 1640, 34.4, 400, f"{_TPU}/v6e"),
)


def peak_of(device: str) -> Peak | None:
    """The peak of a device by the name that its driver gives it; None where it is not known.

    Example:
        >>> peak_of("NVIDIA H100 80GB HBM3").tflops
        989.4
    """
    return next((peak for peak in PEAKS if peak.name in device), None)
