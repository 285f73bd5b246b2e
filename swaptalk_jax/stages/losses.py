"""Every loss as a function of arrays. Images are [-1, 1]; everything is computed in float32."""

import jax
import jax.numpy as jnp
import optax

from data_pipelines.faces.align import mouth_area
from swaptalk_jax.models.expert import in_sync


def reconstruction(image, reconstruction):
    """Mean absolute error of images [b h w 3] (first term of eq. 3)."""
    return jnp.mean(jnp.abs(image - reconstruction))


def feature_difference(features, features_of_result):
    """Sum over layers of the mean absolute difference of feature maps (second term of eq. 3)."""
    return sum(jnp.mean(jnp.abs(a - b)) for a, b in zip(features, features_of_result, strict=True))


def edge_maps(image, scales=3):
    """Horizontal and vertical differences of an image [b h w 3] at `scales` octaves.

    The stand-in for a perceptual network where no weights are given: edges are what an L1 loss
    alone blurs first, and they need no pretrained weights.
    """
    maps = []
    for _ in range(scales):
        maps += [image[:, 1:] - image[:, :-1], image[:, :, 1:] - image[:, :, :-1]]
        b, h, w, c = image.shape
        image = image.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
    return maps


def codebook(z, z_q, beta):
    """(||sg[z] - z_q||^2, beta ||z - sg[z_q]||^2), both means (eq. 4), z and z_q [b h w d]."""
    to_codes = jnp.mean(jnp.square(jax.lax.stop_gradient(z) - z_q))
    commitment = jnp.mean(jnp.square(z - jax.lax.stop_gradient(z_q)))
    return to_codes, beta * commitment


def hinge_discriminator(real, fake):
    """Hinge loss of the discriminator's logits (taming-transformers)."""
    return 0.5 * (jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake)))


def hinge_generator(fake):
    """The generator's side: raise the logits of its images."""
    return -jnp.mean(fake)


def adversarial_start(config):
    """The first step with the adversarial loss, of a VQGAN's config: a share of its steps."""
    return int(config.loss.adversarial_start_share * config.train.steps)


def adaptive_weight(gradient_reconstruction, gradient_adversarial, weight):
    """weight x ||grad L_rec|| / (||grad L_adv|| + 1e-4), clipped to [0, 1e4] (VQGAN; PAPER eq. 6).

    The gradients are those of the decoder's last kernel.
    """
    ratio = jnp.linalg.norm(gradient_reconstruction) / (
        jnp.linalg.norm(gradient_adversarial) + 1e-4
    )
    return weight * jax.lax.stop_gradient(jnp.clip(ratio, 0.0, 1e4))


def identity(embedding, embedding_of_result):
    """Per-example 1 - cos of L2-normalised recogniser embeddings [b d] (eq. 5, 9) -> [b]."""
    return 1.0 - jnp.sum(embedding * embedding_of_result, axis=-1)


def margin_softmax(embeddings, weights, labels, margin, scale):
    """Additive angular margin softmax (ArcFace) -> per-example loss [b].

    embeddings [b d] L2-normalised; weights [classes d], normalised here; labels int32 [b];
    margin in radians; scale multiplies the cosines. Where the angle plus the margin would pass
    pi, the linear continuation cos - margin sin(margin) of the ArcFace code is taken.
    """
    weights = weights / jnp.maximum(jnp.linalg.norm(weights, axis=-1, keepdims=True), 1e-6)
    cosine = jnp.clip(embeddings @ weights.T, -1.0 + 1e-6, 1.0 - 1e-6)
    true = jnp.take_along_axis(cosine, labels[:, None], axis=1)
    with_margin = jnp.cos(jnp.arccos(true) + margin)
    past_pi = true < jnp.cos(jnp.pi - margin)
    with_margin = jnp.where(past_pi, true - margin * jnp.sin(margin), with_margin)
    logits = jnp.where(jax.nn.one_hot(labels, weights.shape[0], dtype=bool), with_margin, cosine)
    return optax.softmax_cross_entropy_with_integer_labels(scale * logits, labels)


def code(z, z_of_result, weights=1.0):
    """Per-example mean squared error of VQ-embeddings [b ... d] (eq. 8, 14) -> [b].

    weights: of cells, of a shape that broadcasts to [b ... d], 1 on average (chosen; 1 in the
    paper).
    """
    return jnp.mean(weights * jnp.square(z - z_of_result), axis=tuple(range(1, z.ndim)))


STEEPEST = 20.0  # gradient of `sync` in the cosine, where lips and sound have nothing in common


def sync(cosine):
    """-log cos(E_v, E_a) per example (eq. 15); cosine [b] in [0, 1].

    Below 1/20 it goes on as the tangent there (chosen): the logarithm's gradient would pass all
    bounds, and a clipped one would be zero where lips have most to learn. 4.0 at a cosine of 0.
    """
    bound = 1.0 / STEEPEST
    tangent = jnp.log(STEEPEST) + STEEPEST * (bound - cosine)
    return jnp.where(cosine > bound, -jnp.log(jnp.maximum(cosine, bound)), tangent)


def sync_classification(video, audio, label):
    """Binary cross-entropy on the cosine (as Wav2Lip trains SyncNet) -> [b]; label 1 = in sync."""
    p = jnp.clip(in_sync(video, audio), 1e-4, 1.0 - 1e-4)
    return -(label * jnp.log(p) + (1.0 - label) * jnp.log(1.0 - p))


def contrast(video, audio, in_sync, temperature=0.07):
    """InfoNCE: each window finds its sound among a batch's sounds, and the other way (CLIP).

    video and audio [b d], L2-normalised; in_sync [b]: 1 where row i of both belong together, 0
    where they don't: such a row is no question, but stays among the answers. -> scalar.
    """
    logits = video @ audio.T / temperature
    own = jnp.arange(len(in_sync))
    questions = (
        optax.softmax_cross_entropy_with_integer_labels(rows, own) for rows in (logits, logits.T)
    )
    return jnp.sum(in_sync * sum(questions)) / (2.0 * jnp.maximum(jnp.sum(in_sync), 1.0))


def lower_weights(height, width, mouth):
    """Weights of the cells of a grid's lower half: float32 [height/2 width], 1 on average.

    A cell where a speaking mouth may be (`mouth_area`) weighs `mouth` times as much as others.
    """
    weights = 1.0 + (mouth - 1.0) * mouth_area(height, width)[height // 2 :]
    return weights / weights.mean()
