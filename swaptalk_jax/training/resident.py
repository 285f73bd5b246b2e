"""Data that lie on the devices, cut over the mesh: batches are gathered inside the step."""

import jax
import jax.numpy as jnp
import numpy as np

from swaptalk_jax.training.sharding import AXIS, batched


def hold(arrays, mesh):
    """{name: array [n ...]} -> global arrays, cut along their rows over the data axis.

    Rows of zeros fill up the last device's part; every host has to hold all rows for a moment.
    """
    sharding, parts = batched(mesh), mesh.shape[AXIS]

    def spread(array):
        rows = -(-len(array) // parts) * parts
        more = np.zeros((rows - len(array), *array.shape[1:]), array.dtype)
        whole = np.concatenate([array, more]) if len(more) else array
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return {name: spread(array) for name, array in arrays.items()}


def gather(held, batch, source, mesh):
    """The batch whose rows are given: what the streaming loader would have given.

    held: of `hold`. batch: {field: rows int32 [b ...], or values}; source(field): name of the array
    the rows are of, or None. Each device looks up what it holds of all rows, and the sum over the
    devices, of which one has each row, is handed back in parts: the traffic is that of a batch.
    """
    return {
        field: value if source(field) is None else _rows(held[source(field)], value, mesh)
        for field, value in batch.items()
    }


def _rows(array, rows, mesh):
    spec = batched(mesh).spec
    # Sums in 32 bits, which all devices have; exact, as all other summands are zero.
    wide = jnp.int32 if jnp.issubdtype(array.dtype, jnp.integer) else jnp.float32

    def here(part, rows):
        own = jax.lax.all_gather(rows, AXIS, tiled=True) - jax.lax.axis_index(AXIS) * len(part)
        held = (own >= 0) & (own < len(part))
        found = part[jnp.clip(own, 0, len(part) - 1)].astype(wide)
        held = held.reshape(*held.shape, *[1] * (found.ndim - held.ndim))
        return jax.lax.psum_scatter(jnp.where(held, found, 0), AXIS, tiled=True)

    found = jax.shard_map(here, mesh=mesh, in_specs=(spec, spec), out_specs=spec)(array, rows)
    return found.astype(array.dtype) if wide == jnp.int32 else found
