"""The mesh, and how batches and states lie on it."""

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def make_mesh(axes):
    """Mesh from {axis name: devices}, one size may be -1 for all that are left.

    Axis types are Auto: make_mesh defaults to Explicit, where codebook gathers fail.
    """
    sizes = dict(axes)
    known = int(np.prod([n for n in sizes.values() if n != -1]))
    sizes = {k: jax.device_count() // known if n == -1 else n for k, n in sizes.items()}
    if int(np.prod(list(sizes.values()))) != jax.device_count():
        raise ValueError(f"mesh {sizes} does not cover {jax.device_count()} devices")
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), (AxisType.Auto,) * len(sizes))


def local_mesh():
    """Mesh of this host's own devices, for work that hosts do apart."""
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicated(mesh):
    """Sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh):
    """Sharding of batches: the first dimension over the data axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def place(batch, mesh):
    """This host's part of a batch (dict of NumPy arrays) -> global arrays on the mesh."""
    sharding = batched(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
