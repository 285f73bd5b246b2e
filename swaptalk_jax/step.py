"""The training step as a pure function of state, frozen networks and batch."""

import flax
import jax
import jax.numpy as jnp
import optax


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


def make_step(stage, tx, config):
    """(state, frozen, batch) -> (state, metrics), a pure function; metrics are float32 scalars."""

    def step(state, frozen, batch):
        rng = jax.random.fold_in(jax.random.key(config.seed), state.step)
        differentiated = jax.value_and_grad(stage.loss, has_aux=True)

        def gradients(batch, rng):
            (loss, (metrics, aux)), grads = differentiated(
                state.params, frozen, batch, rng, state.step
            )
            return ({"loss": loss, **metrics}, grads), aux

        (metrics, grads), aux = accumulated(gradients, batch, rng, config.train.accumulate)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params = stage.after_update(params, aux, jax.random.fold_in(rng, 1))
        ema = averaged(state, stage.averaged(params), config.train.ema) if state.ema else {}
        metrics["gradient_norm"] = optax.global_norm(grads)
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    return step


def accumulated(gradients, batch, rng, parts):
    """Means of a batch's gradients and metrics, computed in `parts` microbatches one by one.

    gradients: (batch, rng) -> (tree to average, aux); aux: arrays [b ...], which come back for the
    whole batch, in its order. Microbatch i has the examples i, i + parts ..., so that every device
    keeps its own ones. A loss that is a mean over examples comes out as without parts; what
    compares the examples of a batch with one another (InfoNCE, the adversarial weight) sees
    microbatches, and each has randomness of its own.
    """
    if parts == 1:
        return gradients(batch, rng)

    def one(total, part):
        number, batch = part
        found, aux = gradients(batch, jax.random.fold_in(rng, 2 + number))
        return jax.tree.map(jnp.add, total, found), aux

    cut = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
    shapes, _ = jax.eval_shape(gradients, jax.tree.map(lambda x: x[0], cut), rng)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, aux = jax.lax.scan(one, zeros, (jnp.arange(parts), cut))
    whole = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), aux)
    return jax.tree.map(lambda x: x / parts, total), whole


def averaged(state, params, decay):
    """The running averages after a step; early ones forget faster, (1 + n) / (10 + n) (LitEma)."""
    decay = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
    return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.ema, params)
