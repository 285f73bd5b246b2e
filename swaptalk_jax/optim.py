"""Optimizers from the config: one group for each top-level key of the parameters."""

import jax
import optax


def schedule(lr, warmup, steps, decay):
    """Linear warm-up over `warmup` steps, then constant, or cosine to zero when `decay` is set."""
    if decay:
        return optax.warmup_cosine_decay_schedule(0.0, lr, warmup, max(steps, warmup + 1))
    return optax.linear_schedule(0.0, lr, warmup) if warmup else optax.constant_schedule(lr)


def adam(group, steps):
    """Adam of one group: lr, b1, b2, warmup, clip (global norm; 0 = none), decay."""
    clip = [optax.clip_by_global_norm(group.clip)] if group.clip else []
    rate = schedule(group.lr, group.warmup, steps, group.decay)
    return optax.chain(*clip, optax.adam(rate, b1=group.b1, b2=group.b2))


def optimizer(groups, steps, params):
    """`optax.partition` over the top-level keys of params.

    Keys named in `groups` get their own Adam, the rest get `groups.default`; keys in
    `groups.constant` are not trained (counters).
    """
    constant = set(groups.get("constant", ()))
    labels = {k: k if k in groups or k in constant else "default" for k in params}
    transforms = {
        label: optax.set_to_zero() if label in constant else adam(groups[label], steps)
        for label in set(labels.values())
    }
    tree = {k: jax.tree.map(lambda _, label=labels[k]: label, v) for k, v in params.items()}
    return optax.partition(transforms, tree)
