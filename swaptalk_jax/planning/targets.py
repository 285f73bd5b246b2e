"""Machines that aren't there, to compile for: TPU slices by libtpu, GPUs by simulated devices."""

import dataclasses
import importlib.util
import math
import os

import jax
from jax.experimental import topologies

from swaptalk_jax.costs import chips
from swaptalk_jax.errors import RunError

LIBTPU = (
    "there is no libtpu here; it compiles for TPUs on a CPU machine too: pip install 'jax[tpu]'"
)
# libtpu looks for a cloud's machine, and for other programs that hold its chips.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for. estimate: simulated ones stand for a GPU's."""

    name: str
    chip: chips.Chip
    count: int
    estimate: bool = False

    def devices(self):
        """JAX's devices, `count` of them. Raises RuntimeError: there are none such, or no libtpu.

        Simulated ones are made once in a process, before JAX has begun.
        """
        if self.estimate:
            jax.config.update("jax_num_cpu_devices", self.count)
            return jax.devices()
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        options = {}
        if self.chip.cores > 1:
            options["chip_config_name"] = "megacore"  # a chip's two cores are one device
        if self.count == 1:
            options["chips_per_host_bounds"] = (1, 1, 1)
        found = topologies.get_topology_desc(platform="tpu", topology_name=self.name, **options)
        return found.devices


def target(topology):
    """The Target of `v5e:16x16` or `gpu:h100x8`; raises RunError where there is none."""
    family, _, size = topology.partition(":")
    if family == "gpu":
        name, _, count = size.rpartition("x")
        chip, counts = chips.find(name), [count]
    else:
        chip, counts = chips.find(family), size.split("x")
    if chip is None or chip.tpu == (family == "gpu") or not all(n.isdigit() for n in counts):
        tpus = ", ".join(c.name for c in chips.CHIPS if c.tpu)
        gpus = ", ".join(c.name for c in chips.CHIPS if not c.tpu)
        raise RunError(
            f"--topology={topology}: wanted <TPU>:<shape> such as v5e:16x16, of {tpus}; or"
            f" gpu:<GPU>x<count> such as gpu:h100x8, of {gpus}"
        )
    if chip.tpu and importlib.util.find_spec("libtpu") is None:
        raise RunError(LIBTPU)
    return Target(topology, chip, math.prod(map(int, counts)), estimate=family == "gpu")
