"""The training step as a pure function of state, frozen networks and batch."""

import contextlib

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from swaptalk_jax.models import blocks
from swaptalk_jax.training import optim, sharding

FEW = 8  # images a TPU; see few_a_device


@flax.struct.dataclass
class TrainState:
    """All that is checkpointed: a tree of arrays.

    step: int32 scalar, updates done. params: dict whose top-level keys are the optimizer's groups.
    opt_state: optax's. ema: running averages of `Stage.averaged(params)`; empty where
    config.train.ema is 0.
    """

    step: jax.Array
    params: dict
    opt_state: tuple
    ema: dict

    @property
    def best(self):
        """The parameters to evaluate and to keep: averages where there are any."""
        return self.params | self.ema


def initial(stage, tx, config, key, batch):
    """The state of step 0, but for what `Stage.start` replaces; batch: arrays or their shapes."""
    params = stage.init(key, batch)
    ema = stage.averaged(params) if config.train.ema else {}
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), ema)


def few_a_device(split):
    """Whether each TPU of a sharding.Split has so few examples that norms have to be fenced.

    With fewer than 8 images a device libtpu cuts them into strips, and has each convolution write
    its result and the square of it, in float32, for the norm that follows. A fence between them
    (lax.optimization_barrier) leaves one array of bfloat16, to which the program rounds there.
    Memory traffic of a step, VQGAN of the paper's size, v5e, without / with: 1 image a chip
    68 / 32 GB, 2: 182 / 83, 6: 418 / 217, but 8: 130 / 153, as there are no strips then (libtpu
    0.0.42, launch/plan.py).
    """
    return split.each < FEW and split.mesh.devices.flat[0].platform == "tpu"


def fences():
    """Within it, what goes into a norm of groups is finished before the norm begins."""

    def fence(apply, args, kwargs, context):
        if isinstance(context.module, blocks.GroupNorm) and context.method_name == "__call__":
            args = (jax.lax.optimization_barrier(args[0]), *args[1:])
        return apply(*args, **kwargs)

    return nn.intercept_methods(fence)


def make_step(stage, tx, config, split):
    """(state, frozen, batch) -> (state, metrics), a pure function; metrics are float32 scalars.

    split: sharding.Split of the batches, which come padded. Where they are uneven or small on the
    devices, `Split.spread` and `fences` change how it is compiled and nothing that it computes.
    """
    fenced = few_a_device(split)

    def loss(params, frozen, batch, *rest):
        size = len(jax.tree.leaves(batch)[0])
        uneven = size % split.mesh.shape[sharding.AXIS]
        with contextlib.ExitStack() as within:
            if fenced:
                within.enter_context(fences())
            if uneven:
                within.enter_context(split.spread(size))
            return stage.loss(params, frozen, batch, *rest)

    def step(state, frozen, batch):
        rng = jax.random.fold_in(jax.random.key(config.seed), state.step)
        differentiated = jax.value_and_grad(loss, has_aux=True)

        def gradients(batch, rng):
            (loss, (metrics, aux)), grads = differentiated(
                state.params, frozen, batch, rng, state.step
            )
            return ({"loss": loss, **metrics}, grads), aux

        (metrics, grads), aux = accumulated(gradients, batch, rng, split)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params, renewed = stage.after_update(params, aux, jax.random.fold_in(rng, 1))
        opt_state = optim.forget(tx, opt_state, params, renewed)
        ema = averaged(state, stage.averaged(params), config.train.ema) if state.ema else {}
        metrics["gradient_norm"] = optax.global_norm(grads)
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    return step


def accumulated(gradients, batch, rng, split):
    """Means of a batch's gradients and metrics, computed in microbatches one by one.

    gradients: (batch, rng) -> (tree to average, aux); aux: arrays [b ...], which come back for the
    whole batch, in its order. batch: padded, as `split` (sharding.Split) says. Microbatch i has the
    examples i, i + parts ..., so that every device keeps its own ones; the first ones have an
    example more where the batch is no multiple of parts. A mean over examples comes out as without
    microbatches, as each counts by its size; what compares the examples of a batch with one another
    (InfoNCE, the adversarial weight) sees microbatches, and each has randomness of its own.
    """
    parts = split.parts
    if parts == 1:
        return gradients(split.real(batch), rng)
    cut = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
    least, longer = divmod(split.size, parts)
    means, auxes = [], []
    for first, end, size in ((0, longer, least + 1), (longer, parts, least)):
        if first < end:
            some = jax.tree.map(lambda x: x[first:end], cut)  # noqa: B023
            mean, aux = _summed(gradients, some, rng, split, first, size)
            means.append(jax.tree.map(lambda x: x * (size / split.size), mean))  # noqa: B023
            auxes.append(aux)
    return jax.tree.map(lambda *x: sum(x), *means), jax.tree.map(_in_order, *auxes)


def _summed(gradients, cut, rng, split, first, size):
    """(sum of gradients, aux [size n ...]) of microbatches [n rows ...] of `size` examples each.

    first: number of the first of them.
    """

    def one(total, part):
        number, batch = part
        found, aux = gradients(split.real(batch, size), jax.random.fold_in(rng, 2 + number))
        return jax.tree.map(jnp.add, total, found), aux

    example = jax.tree.map(lambda x: x[0, :size], cut)
    shapes, _ = jax.eval_shape(gradients, example, rng)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    numbers = first + jnp.arange(len(jax.tree.leaves(cut)[0]))
    total, aux = jax.lax.scan(one, zeros, (numbers, cut))
    return total, jax.tree.map(lambda x: x.swapaxes(0, 1), aux)


def _in_order(longer, shorter=None):
    """Arrays [m+1 n ...] and [m k ...] (or one alone) of microbatches -> [b ...] as they came."""
    if shorter is None:
        return longer.reshape(-1, *longer.shape[2:])
    whole = jnp.concatenate([longer[:-1], shorter], axis=1)
    return jnp.concatenate([whole.reshape(-1, *whole.shape[2:]), longer[-1]])


def averaged(state, params, decay):
    """The running averages after a step; early ones forget faster, (1 + n) / (10 + n) (LitEma)."""
    decay = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
    return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.ema, params)
