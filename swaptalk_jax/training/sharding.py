"""The mesh, and how batches and states lie on it."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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


@dataclasses.dataclass(frozen=True)
class Split:
    """How a global batch of any size is shared by the devices of a mesh.

    The batch is padded with copies of its last example to `padded` rows, which the devices share
    evenly. `real` takes the padding off again inside the compiled program, so that losses see each
    example once, and no loss needs a mask. XLA's partitioner keeps what is left on its devices: a
    device has ceil(size / devices) examples, or fewer, or none.

    size: examples in the global batch. accumulate: microbatches, one after the other, that it is
    cut into; no more than there are examples. Microbatch i has the examples i, i + parts ...
    """

    size: int
    mesh: Mesh
    accumulate: int = 1

    @property
    def parts(self):
        """Number of microbatches."""
        return min(self.accumulate, self.size)

    @property
    def each(self):
        """The most examples of a microbatch that a device has."""
        return -(-self.size // (self.mesh.shape[AXIS] * self.parts))

    @property
    def padded(self):
        """Rows of the padded batch: a multiple of devices x microbatches."""
        return self.each * self.mesh.shape[AXIS] * self.parts

    def rows(self):
        """Numbers of the padded batch's rows that this process' devices hold: int [n], sorted.

        Numbers from `size` on are padding.
        """
        shape = (self.padded,)
        held = batched(self.mesh).addressable_devices_indices_map(shape).values()
        return np.unique([np.arange(self.padded)[index] for index in held])

    def real(self, batch, size=None):
        """The batch without its padding, inside a compiled function; every device keeps its rows.

        batch: tree of arrays [padded ...]. size: real rows, those of the whole batch unless given.
        """
        size = self.size if size is None else size

        def cut(x):
            if len(x) == size:
                return x
            return jax.lax.with_sharding_constraint(x[:size], batched(self.mesh))

        return jax.tree.map(cut, batch)

    def spread(self, size=None):
        """Within it, what goes into a module lies over the devices though they don't divide it.

        XLA gives up to spread uneven rows at a reshape that merges them with another dimension
        (13 windows of 5 frames -> 65 frames): all devices would do the work of all from there on.
        size: examples in the batch that is worked on; an array of a multiple of so many rows is
        taken for theirs. Where an array lies changes no value.
        """
        size = self.size if size is None else size
        free = PartitionSpec.UNCONSTRAINED

        def placed(x):
            if not isinstance(x, jax.Array) or not x.ndim or not len(x) or len(x) % size:
                return x
            spec = PartitionSpec(AXIS, *[free] * (x.ndim - 1))
            return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

        def place(apply, args, kwargs, context):
            return apply(*map(placed, args), **kwargs)

        return nn.intercept_methods(place)


def place(batch, mesh):
    """This host's part of a batch (dict of NumPy arrays) -> global arrays on the mesh."""
    sharding = batched(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
