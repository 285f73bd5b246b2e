"""VQGAN: the latent space of both halves of the face (paper III-A)."""

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from swaptalk_jax import errors
from swaptalk_jax.models.latent import halves, to_float
from swaptalk_jax.stages import Stage, losses, rules

stop = jax.lax.stop_gradient
HALVES = ("upper", "lower")
ADVERSARIAL = ("loss/adv", "loss/disc", "adv_weight")  # metrics, 0 before the critic joins


class VQGANStage(Stage):
    """params: vqgan, discriminator, and what has no gradient; trains on `images`.

    code_age: steps since each code was last used. code_means, where loss.codebook_decay is set:
    running averages of each code's share of a batch (count) and of its encoder outputs (sum).
    """

    view = "images"
    frozen, optional = ("recogniser",), ("perceptual",)
    bundled, file = ("vqgan",), "vqgan"
    learns = "loss/rec"  # the sum of a GAN's losses says little
    worth = ("val/psnr", 1, 0.02)
    rules = (rules.COLLAPSED_CODES, rules.CRITIC)

    def __init__(self, config, networks, metadata=None):
        super().__init__(config, networks, metadata)
        self.vqgan = self.build("vqgan")
        self.discriminator = self.build("discriminator")
        self.recogniser = self.networks["recogniser"]
        self.perceptual = self.networks.get("perceptual")
        self.teacher = self.networks.get("teacher_vqgan")

    @staticmethod
    def turns(config):
        """The first step of the discriminator."""
        return losses.adversarial_start(config)

    def init(self, rng, batch):
        """Parameters from one batch of images."""
        image = to_float(batch["image"])
        first, second = jax.random.split(rng)
        vqgan = self.vqgan.init(first, image)["params"]
        # All are due: what the first batch leaves unused starts as one of its encoder outputs.
        rows = len(vqgan["codebook_upper"])
        due = jnp.full(rows, self.config.loss.restart_after, jnp.float32)
        params = {
            "vqgan": vqgan,
            "discriminator": self.discriminator.init(second, image)["params"],
            "code_age": {half: due for half in HALVES},
        }
        if self.config.loss.codebook_decay:
            params["code_means"] = {
                half: {"count": jnp.ones_like(due), "sum": vqgan[f"codebook_{half}"]}
                for half in HALVES
            }
        return params

    def start(self, params, given):
        """Takes of a given VQGAN what is of the same name and shape."""
        if given is None:
            return params
        folder = self.config.init_from
        given = flatten_dict(given.get("vqgan", {}), sep="/")
        own = flatten_dict(params["vqgan"], sep="/")
        taken = {k: given[k] for k in own if k in given and given[k].shape == own[k].shape}
        if not taken:
            raise errors.CheckpointError(
                f"{folder}: nothing in it fits config.model.vqgan; take its config.json's"
            )
        left = sorted(own.keys() - taken.keys())
        told = f"; as before: {', '.join(left)}" if left else ""
        print(f"[vqgan] {len(taken)} of {len(own)} arrays come from {folder}{told}", flush=True)
        params = params | {"vqgan": unflatten_dict(own | taken, sep="/")}
        for half in HALVES:
            book = params["vqgan"][f"codebook_{half}"]
            if f"codebook_{half}" in taken:  # its codes are worth keeping: none is due
                ages = params["code_age"] | {half: jnp.zeros(len(book))}
                params = params | {"code_age": ages}
            if "code_means" in params:
                means = {"count": jnp.ones(len(book)), "sum": book}
                params = params | {"code_means": params["code_means"] | {half: means}}
        return params

    def difference(self, nets, image, result):
        """How different images look, a scalar: a perceptual network's distance, and edge maps'.

        Edge maps alone stand in where there is no such network. It sees the first
        `perceptual_examples` of the batch (0: all).
        """
        c = self.config.loss
        edges = losses.feature_difference(losses.edge_maps(image), losses.edge_maps(result))
        if not self.perceptual:
            return edges
        few = slice(c.perceptual_examples or None)
        pair = image[few], result[few]
        distance = self.perceptual.apply(nets["perceptual"], *pair, method="distance")
        return c.perceptual * jnp.mean(distance) + c.edges * edges

    def distance_from_teacher(self, nets, image, result):
        """How different the result is from the teacher's, a scalar: pixels and edge maps (chosen).

        Pixels and not codes, which are others in another VQGAN.
        """
        taught = stop(self.teacher.apply(nets["teacher_vqgan"], image)[0])
        edges = losses.feature_difference(losses.edge_maps(taught), losses.edge_maps(result))
        return losses.reconstruction(taught, result) + edges

    def loss(self, params, nets, batch, rng, step):
        """Eq. 6, and the distance from a teacher where there is one.

        The discriminator's hinge loss is added behind stop-gradients.
        """
        c = self.config.loss
        image = to_float(batch["image"])
        variables = {"params": params["vqgan"]}
        z = self.vqgan.apply(variables, image, method="encode")
        codes = self.vqgan.apply(variables, z, method="nearest")
        z_q = self.vqgan.apply(variables, codes, method="lookup")
        straight = z + stop(z_q - z)
        if c.noise:
            straight = straight + c.noise * stop(jnp.std(z)) * jax.random.normal(rng, z.shape)
        hidden = self.vqgan.apply(variables, straight, method="trunk")
        result = self.vqgan.apply(variables, hidden, straight, method="paint")

        def described(result):
            return losses.reconstruction(image, result) + self.difference(nets, image, result)

        to_codes, commitment = losses.codebook(z, z_q, c.beta)
        id_loss = jnp.mean(
            losses.identity(
                self.recogniser.apply(nets["recogniser"], image),
                self.recogniser.apply(nets["recogniser"], result),
            )
        )
        total = described(result)
        metrics = {"loss/rec": total, "loss/codebook": to_codes, "loss/id": id_loss}
        if c.codebook_decay:
            to_codes = 0.0  # `after_update` moves the codes
        total = total + c.vq * (to_codes + commitment) + c.id * id_loss
        if self.teacher:
            metrics["loss/distil"] = self.distance_from_teacher(nets, image, result)
            total = total + self.config.distil.weight * metrics["loss/distil"]
        adversarial, details = 0.0, dict.fromkeys(ADVERSARIAL, jnp.zeros(()))
        start = losses.adversarial_start(self.config)
        if start < self.config.train.steps:  # else the critic need not be compiled
            adversarial, details = jax.lax.cond(
                step >= start,
                lambda: self.adversarial(params, described, (hidden, straight), image, result),
                lambda: (0.0, details),
            )
        for half, part in zip(HALVES, halves(codes[..., None]), strict=True):
            metrics[f"codes_alive_{half}"] = jnp.mean(
                params["code_age"][half] < c.restart_after, dtype=jnp.float32
            )
            first = part.reshape(-1, self.vqgan.depth)[:, 0]
            metrics[f"perplexity_{half}"] = perplexity(first, self.vqgan.codes)
        metrics |= details | {"psnr": jnp.mean(psnr(image, result))}
        return total + adversarial, (metrics, {"codes": codes, "z": stop(z)})

    def adversarial(self, params, described, hidden, image, result):
        """(weighted generator loss + discriminator loss, metrics)."""

        def judge(weights, image):
            return self.discriminator.apply({"params": weights}, image)

        def through_last_kernel(loss):
            def of_kernel(kernel):
                last = {**params["vqgan"]["to_rgb"], "kernel": kernel}
                weights = {"params": {**params["vqgan"], "to_rgb": last}}
                return loss(self.vqgan.apply(weights, *stop(hidden), method="paint"))

            return jax.grad(of_kernel)(params["vqgan"]["to_rgb"]["kernel"])

        opponent = stop(params["discriminator"])
        fool = losses.hinge_generator(judge(opponent, result))
        weight = losses.adaptive_weight(
            through_last_kernel(described),
            through_last_kernel(lambda x: losses.hinge_generator(judge(opponent, x))),
            self.config.loss.adversarial,
        )
        real, fake = (judge(params["discriminator"], stop(x)) for x in (image, result))
        tell = losses.hinge_discriminator(real, fake)
        metrics = {"loss/adv": fool, "loss/disc": tell, "adv_weight": weight}
        return weight * fool + tell, metrics

    def after_update(self, params, aux, rng):
        """Codes unused for `restart_after` steps start again as encoder outputs of this batch.

        With `codebook_decay`, the others become the running averages of their encoder outputs
        (van den Oord et al. 2017, appendix A.1), which a run of minutes needs: Adam moves a code by
        its learning rate a step, too slow to follow the encoder. These codes have no gradient, and
        nothing that the optimizer could forget.
        """
        c = self.config.loss
        vqgan, ages, means, renewed = dict(params["vqgan"]), {}, {}, {}
        halved = zip(HALVES, halves(aux["codes"][..., None]), halves(aux["z"]), strict=True)
        for half, codes, z in halved:
            depth, book = self.vqgan.depth, vqgan[f"codebook_{half}"]
            cells = self.cell_weights(half, z.shape[:3]).reshape(-1)
            codes, z = codes.reshape(-1, depth), z.reshape(-1, z.shape[-1])
            # What each code stands for: z without the codes before it.
            before = jnp.cumsum(book[codes], axis=1) - book[codes]
            meant = z[:, None] - before
            level = jnp.arange(len(book)) // self.vqgan.codes
            weights, codes = jnp.repeat(cells, depth), codes.reshape(-1)
            count = jax.ops.segment_sum(weights, codes, len(book))
            age = jnp.where(count > 0, 0.0, params["code_age"][half] + 1.0)
            dead = age > c.restart_after
            rng, key = jax.random.split(rng)
            drawn = jax.random.choice(key, len(z), (len(book),), p=cells / cells.sum())
            fresh, meant = meant[drawn, level], meant.reshape(-1, z.shape[-1])
            if c.codebook_decay:
                total = jax.ops.segment_sum(weights[:, None] * meant, codes, len(book))
                known, d = params["code_means"][half], c.codebook_decay
                count = d * known["count"] + (1.0 - d) * count
                total = d * known["sum"] + (1.0 - d) * total
                often = jnp.maximum(count, 1e-3)[:, None]  # a code long unused stays where it is
                book = jnp.where(count[:, None] > 1e-3, total / often, book)
                means[half] = {
                    "count": jnp.where(dead, 1.0, count),
                    "sum": jnp.where(dead[:, None], fresh, total),
                }
            vqgan[f"codebook_{half}"] = jnp.where(dead[:, None], fresh, book)
            ages[half] = jnp.where(dead, 0.0, age)
            renewed[f"codebook_{half}"] = dead
        moved = {"vqgan": vqgan, "code_age": ages} | ({"code_means": means} if means else {})
        return params | moved, {} if c.codebook_decay else {"vqgan": renewed}

    def cell_weights(self, half, shape):
        """What each cell [b h/2 w] counts in its codebook: 1, a mouth's `loss.mouth` x, mean 1."""
        b, h, w = shape
        if half == "upper":
            return jnp.ones(shape)
        return jnp.tile(losses.lower_weights(2 * h, w, self.config.loss.mouth), (b, 1, 1))

    def evaluate(self, params, nets, batch):
        """PSNR in dB and 1 - identity loss of the reconstruction, per image."""
        image = to_float(batch["image"])
        result = self.vqgan.apply({"params": params["vqgan"]}, image)[0]
        faces = [self.recogniser.apply(nets["recogniser"], x) for x in (image, result)]
        return {"psnr": psnr(image, result), "id_similarity": 1.0 - losses.identity(*faces)}

    def histograms(self, params, nets, batch):
        """Which codes a batch uses, and for how many steps each code has not been used."""
        del nets
        variables = {"params": params["vqgan"]}
        z = self.vqgan.apply(variables, to_float(batch["image"]), method="encode")
        codes = halves(self.vqgan.apply(variables, z, method="nearest")[..., None])
        found = {f"codes/{half}": x for half, x in zip(HALVES, codes, strict=True)}
        return found | {f"code_age/{half}": params["code_age"][half] for half in HALVES}

    def pictures(self, params, nets, batch):
        """Images above their reconstructions."""
        del nets
        image = to_float(batch["image"][:8])
        return [image, self.vqgan.apply({"params": params["vqgan"]}, image)[0]]


def perplexity(codes, count):
    """How many codes a batch uses, evenly used ones counted: exp of the entropy, 1 to `count`."""
    share = jnp.bincount(codes.reshape(-1), length=count) / codes.size
    return jnp.exp(jnp.sum(jax.scipy.special.entr(share)))


def psnr(image, result):
    """Peak signal-to-noise ratio in dB of [-1, 1] images [b h w 3], the result clipped -> [b]."""
    error = jnp.mean(jnp.square(image - jnp.clip(result, -1.0, 1.0)), axis=(1, 2, 3))
    return 10.0 * jnp.log10(4.0 / jnp.maximum(error, 1e-10))


STAGE = VQGANStage
