"""Published peaks of accelerators, by the name that JAX gives a device.

Peaks are what a vendor states and no program reaches; they are here to say which share of them one
does (train.py) and which bound a program can't beat (costs.roofline).
"""

import dataclasses

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one JAX device of a kind can do.

    peak_flops: FLOP/s of dense bfloat16 matrix products. hbm_bytes: memory, a vendor's "GB" read
    as GiB, which is what drivers report; a program gets 0.25 to 1 GiB less. hbm_bandwidth: bytes/s.
    link_bandwidth: bytes/s that the device can send to its neighbours, all links together, one way
    (vendors often state the sum of both ways). cores: TensorCores that are one JAX device on a TPU,
    1 on GPUs. kinds: values of `device.device_kind`.
    """

    name: str
    kinds: tuple[str, ...]
    peak_flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    link_bandwidth: float
    cores: int = 1

    @property
    def tpu(self):
        """Whether it is a TPU, else a GPU."""
        return self.kinds[0].startswith("TPU")


# TPUs: Google Cloud's pages "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e" (system architecture). Their
# bandwidth between chips is the sum of both ways, halved here: v4 and v5p have 6 links, v5e and v6e
# 4. v4 and v5p: both cores of a chip are one device (megacore), as Cloud TPU VMs have it.
# GPUs: NVIDIA's data sheets "V100", "A100", "H100", "H200", "L4 Tensor Core GPU", and the "Ada GPU
# Architecture" paper for the RTX 4090; dense, where a sheet states FLOP/s with sparsity half of it.
# V100 has no bfloat16: its peak is float16's. NVLink is halved, as above; L4 and RTX 4090 have
# PCIe 4.0 x16 alone (32 GB/s one way).
CHIPS = (
    Chip("v4", ("TPU v4",), 275e12, 32 * GIB, 1228e9, 300e9, cores=2),
    Chip("v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 16 * GIB, 819e9, 200e9),
    Chip("v5p", ("TPU v5", "TPU v5p"), 459e12, 95 * GIB, 2765e9, 600e9, cores=2),
    Chip("v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 32 * GIB, 1638e9, 400e9),
    Chip("v100", ("Tesla V100-SXM2-16GB",), 125e12, 16 * GIB, 900e9, 150e9),
    Chip("v100-32", ("Tesla V100-SXM2-32GB",), 125e12, 32 * GIB, 900e9, 150e9),
    Chip("a100-40", ("NVIDIA A100-SXM4-40GB",), 312e12, 40 * GIB, 1555e9, 300e9),
    Chip("a100", ("NVIDIA A100-SXM4-80GB",), 312e12, 80 * GIB, 2039e9, 300e9),
    Chip("h100", ("NVIDIA H100 80GB HBM3",), 989e12, 80 * GIB, 3350e9, 450e9),
    Chip("h200", ("NVIDIA H200",), 989e12, 141 * GIB, 4800e9, 450e9),
    Chip("l4", ("NVIDIA L4",), 121e12, 24 * GIB, 300e9, 32e9),
    Chip("rtx4090", ("NVIDIA GeForce RTX 4090",), 165e12, 24 * GIB, 1008e9, 32e9),
)


def find(device_kind):
    """The Chip of a `device.device_kind` or of its name here; None: unknown, its peak too."""
    for chip in CHIPS:
        if device_kind in (chip.name, *chip.kinds):
            return chip
    return None
