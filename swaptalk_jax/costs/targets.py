"""Machines that aren't there, to compile for: TPU slices by libtpu, GPUs by simulated devices."""

import dataclasses
import importlib.util
import os

import jax
from jax.experimental import topologies

from swaptalk_jax.costs import chips

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
    """Devices to compile for. estimate: they are simulated ones in place of a GPU's."""

    name: str
    chip: chips.Chip
    devices: list
    estimate: bool = False


def target(topology):
    """The Target of `v5e:16x16` or `gpu:h100x8`; ends the program where there is none."""
    family, _, size = topology.partition(":")
    if family == "gpu":
        name, _, count = size.rpartition("x")
        chip = chips.find(name)
        if chip is None or not count.isdigit():
            known = ", ".join(c.name for c in chips.CHIPS)
            raise SystemExit(f"--topology={topology}: wanted gpu:<chip>x<count>, chips: {known}")
        return Target(topology, chip, _simulated(int(count)), estimate=True)
    options = {}
    if family in ("v4", "v5p"):
        options["chip_config_name"] = "megacore"  # a chip's two cores are one device
    if set(size.split("x")) == {"1"}:
        options["chips_per_host_bounds"] = (1, 1, 1)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
    except Exception as error:  # its own, RuntimeError, AttributeError: by version
        absent = importlib.util.find_spec("libtpu") is None
        raise SystemExit(LIBTPU if absent else f"--topology={topology}: {error}") from error
    return Target(topology, chips.find(found.devices[0].device_kind), found.devices)


def _simulated(count):
    jax.config.update("jax_num_cpu_devices", count)
    if jax.device_count() != count:
        raise SystemExit(f"{count} simulated devices wanted, JAX has {jax.device_count()} already")
    return jax.devices()
