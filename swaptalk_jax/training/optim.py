"""Optimizers from the config: one group for each top-level key of the parameters."""

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from optax import contrib


def schedule(lr, warmup, steps, decay):
    """Linear warm-up over `warmup` steps, then constant, or cosine to zero when `decay` is set."""
    if decay:
        return optax.warmup_cosine_decay_schedule(0.0, lr, warmup, max(steps, warmup + 1))
    return optax.linear_schedule(0.0, lr, warmup) if warmup else optax.constant_schedule(lr)


def kernel_axes(path, x):
    """How Muon reads a parameter as a matrix; None: it isn't one, Adam trains it.

    Kernels of Flax's Conv and Dense have one output axis, the last; the query, key and value of
    its attention have two (head, channel), and its output kernel has two of input.
    """
    names = [part.key for part in path]
    if names[-1] != "kernel":
        return None
    outputs = 2 if names[-2] in ("query", "key", "value") else 1
    axes = tuple(range(x.ndim))
    return contrib.MuonDimensionNumbers(axes[:-outputs], axes[-outputs:])


def highest_rate(g, batch_size):
    """The learning rate of a group after its warm-up; batch_size: global."""
    return g.lr_per_example * batch_size if g.lr_per_example else g.lr


def group(g, steps, batch_size):
    """The optimizer of one group of the config (configs/common.py: adam, muon)."""
    clip = [optax.clip_by_global_norm(g.clip)] if g.clip else []
    rate = schedule(highest_rate(g, batch_size), g.warmup, steps, g.decay)
    if not g.muon_lr:
        return optax.chain(*clip, optax.adam(rate, b1=g.b1, b2=g.b2))
    muon = contrib.muon(
        schedule(g.muon_lr, g.warmup, steps, g.decay),
        adam_learning_rate=rate,
        adam_b1=g.b1,
        adam_b2=g.b2,
        muon_weight_dimension_numbers=lambda p: jax.tree.map_with_path(kernel_axes, p),
    )
    return optax.chain(*clip, muon)


def optimizer(groups, steps, batch_size, params):
    """`optax.partition` over the top-level keys of params; batch_size: global.

    Keys named in `groups` get their own optimizer, the rest get `groups.default`; keys in
    `groups.constant` are not trained (counters).
    """
    constant = set(groups.get("constant", ()))
    labels = {k: k if k in groups or k in constant else "default" for k in params}
    transforms = {
        label: optax.set_to_zero() if label in constant else group(groups[label], steps, batch_size)
        for label in set(labels.values())
    }
    tree = {k: jax.tree.map(lambda _, label=labels[k]: label, v) for k, v in params.items()}
    return optax.partition(transforms, tree)


def forget(tx, state, params, renewed):
    """The optimizer's state with zeros for rows of parameters that are new.

    renewed: some of the tree of params, with a mask bool [rows] for each array in it; {}: none.
    Moments of Adam and Muon are forgotten, counts of steps are not.
    """
    if not renewed:
        return state
    masks = flatten_dict(renewed)
    whole = unflatten_dict({path: masks.get(path, False) for path in flatten_dict(params)})

    def cleared(moment, mask):
        if mask is False or isinstance(moment, optax.MaskedNode):  # of another group
            return moment
        return jnp.where(mask.reshape(-1, *[1] * (moment.ndim - 1)), 0.0, moment)

    return optax.tree.map_params(
        tx, cleared, state, whole, is_leaf=lambda x: isinstance(x, optax.MaskedNode)
    )
