"""The mesh, and how batches and states lie on it."""

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

AXIS = "data"  # batches are cut along it, and states where the config says so


def make_mesh(axes, devices=None):
    """Mesh from {axis name: devices}, one size may be -1 for all that are left.

    devices: all that JAX sees unless given. Axis types are Auto: make_mesh defaults to Explicit,
    where codebook gathers fail. Raises ValueError where the sizes don't cover the devices.
    """
    count = jax.device_count() if devices is None else len(devices)
    sizes = dict(axes)
    known = int(np.prod([n for n in sizes.values() if n != -1]))
    sizes = {k: count // known if n == -1 else n for k, n in sizes.items()}
    if AXIS not in sizes or int(np.prod(list(sizes.values()))) != count:
        raise ValueError(
            f"config.mesh = {dict(axes)} does not fit {count} devices; take {{'{AXIS}': -1}}"
        )
    kinds = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), kinds, devices=devices)


def local_mesh():
    """Mesh of this host's own devices, for work that hosts do apart."""
    return make_mesh({AXIS: -1}, jax.local_devices())


def replicated(mesh):
    """Sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh):
    """Sharding of batches: the first dimension over the data axis."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def layout(mesh, state, rule):
    """Where each array of a TrainState lies: a TrainState of NamedShardings.

    state: arrays or their shapes. rule: config.sharding; what it names is cut over the data axis
    (fully sharded data parallel; ZeRO, Rajbhandari et al. 2020), all else is whole everywhere.
    """

    def spread(tree, wanted):
        return jax.tree.map(lambda x: _cut(mesh, x.shape, rule.min_size if wanted else None), tree)

    return state.replace(
        step=replicated(mesh),
        params=spread(state.params, rule.params),
        opt_state=spread(state.opt_state, rule.opt_state),
        ema=spread(state.ema, rule.opt_state),
    )


def _cut(mesh, shape, least):
    """Cut along the longest dimension that the axis divides; whole where there is none, or where
    there are fewer than `least` elements, as moving small arrays costs more than holding them."""
    fitting = [i for i, n in enumerate(shape) if n % mesh.shape[AXIS] == 0]
    if least is None or not fitting or np.prod(shape) < least:
        return replicated(mesh)
    longest = max(fitting, key=lambda i: shape[i])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, AXIS))


def place(batch, mesh):
    """This host's part of a batch (dict of NumPy arrays) -> global arrays on the mesh."""
    sharding = batched(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
