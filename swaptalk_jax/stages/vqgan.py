"""VQGAN: the latent space of both halves of the face (paper III-A)."""

import jax
import jax.numpy as jnp

from swaptalk_jax import losses
from swaptalk_jax.models.discriminator import PatchDiscriminator
from swaptalk_jax.models.vgg import VGG16Features
from swaptalk_jax.models.vqgan import VQGAN, halves
from swaptalk_jax.pretrained import vgg16
from swaptalk_jax.stages import Stage
from swaptalk_jax.stages.images import to_float

stop = jax.lax.stop_gradient


class VQGANStage(Stage):
    """params: vqgan, discriminator, code_age (steps since a code was last used). On `images`."""

    view = "images"

    def __init__(self, config):
        super().__init__(config)
        self.vqgan = self.build(VQGAN, "vqgan")
        self.discriminator = self.build(PatchDiscriminator, "discriminator")
        self.recogniser = self.frozen("recogniser")

    def init(self, rng, batch):
        """Parameters from one batch of images."""
        image = to_float(batch["image"])
        first, second = jax.random.split(rng)
        codes = self.config.model.vqgan.codes
        return {
            "vqgan": self.vqgan.init(first, image)["params"],
            "discriminator": self.discriminator.init(second, image)["params"],
            "code_age": {"upper": jnp.zeros(codes), "lower": jnp.zeros(codes)},
        }

    def load_frozen(self):
        """The recogniser, and VGG16 where the config names its weights."""
        networks = {"recogniser": self.recogniser.params()}
        if self.config.frozen.vgg:
            networks["vgg"] = vgg16.load(self.config.frozen.vgg)
        return networks

    def perceptual(self, nets, image, result):
        """VGG16's feature difference; without its weights, that of edge maps (a stand-in)."""
        if "vgg" in nets:
            features = VGG16Features(self.dtype).apply
            of = features({"params": nets["vgg"]}, image)
            of_result = features({"params": nets["vgg"]}, result)
        else:
            of, of_result = losses.edge_maps(image), losses.edge_maps(result)
        return losses.feature_difference(jax.tree.map(stop, of), of_result)

    def loss(self, params, nets, batch, rng, step):
        """Eq. 6; the discriminator's hinge loss is added behind stop-gradients."""
        del rng
        c = self.config.loss
        image = to_float(batch["image"])
        variables = {"params": params["vqgan"]}
        z = self.vqgan.apply(variables, image, method="encode")
        codes = self.vqgan.apply(variables, z, method="nearest")
        z_q = self.vqgan.apply(variables, codes, method="lookup")
        hidden = self.vqgan.apply(variables, z + stop(z_q - z), method="trunk")
        result = self.vqgan.apply(variables, hidden, method=to_rgb)

        def described(result):
            return losses.reconstruction(image, result) + c.perceptual * self.perceptual(
                nets, image, result
            )

        to_codes, commitment = losses.codebook(z, z_q, c.beta)
        id_loss = jnp.mean(
            losses.identity(
                self.recogniser.apply(nets["recogniser"], image),
                self.recogniser.apply(nets["recogniser"], result),
            )
        )
        total = described(result)
        metrics = {"loss/rec": total, "loss/codebook": to_codes, "loss/id": id_loss}
        total = total + c.vq * (to_codes + commitment) + c.id * id_loss
        adversarial, details = jax.lax.cond(
            step >= c.adversarial_start,
            lambda: self.adversarial(params, described, hidden, image, result),
            lambda: (0.0, {k: jnp.zeros(()) for k in ("loss/adv", "loss/disc", "adv_weight")}),
        )
        used = {}
        for half, grid in zip(("upper", "lower"), halves(codes[..., None]), strict=True):
            used[half] = jnp.zeros(self.vqgan.codes, bool).at[grid.reshape(-1)].set(True)
            metrics[f"codes_alive_{half}"] = jnp.mean(
                params["code_age"][half] < c.restart_after, dtype=jnp.float32
            )
        metrics |= details | {"psnr": jnp.mean(psnr(image, result))}
        return total + adversarial, (metrics, {"used": used, "z": stop(z)})

    def adversarial(self, params, described, hidden, image, result):
        """(weighted generator loss + discriminator loss, metrics)."""

        def judge(weights, image):
            return self.discriminator.apply({"params": weights}, image)

        def through_last_kernel(loss):
            def of_kernel(kernel):
                last = {**params["vqgan"]["to_rgb"], "kernel": kernel}
                weights = {"params": {**params["vqgan"], "to_rgb": last}}
                return loss(self.vqgan.apply(weights, stop(hidden), method=to_rgb))

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
        """Codes unused for `restart_after` steps start again as encoder outputs of this batch."""
        age, vqgan = {}, dict(params["vqgan"])
        for half, z in zip(("upper", "lower"), halves(aux["z"]), strict=True):
            age[half] = jnp.where(aux["used"][half], 0.0, params["code_age"][half] + 1.0)
            dead = age[half] > self.config.loss.restart_after
            book = vqgan[f"codebook_{half}"]
            z = z.reshape(-1, z.shape[-1])
            rng, key = jax.random.split(rng)
            fresh = z[jax.random.randint(key, (len(book),), 0, len(z))]
            vqgan[f"codebook_{half}"] = jnp.where(dead[:, None], fresh, book)
            age[half] = jnp.where(dead, 0.0, age[half])
        return {**params, "vqgan": vqgan, "code_age": age}

    def evaluate(self, params, nets, batch):
        """PSNR in dB and 1 - identity loss of the reconstruction, per image."""
        image = to_float(batch["image"])
        result = self.vqgan.apply({"params": params["vqgan"]}, image)[0]
        faces = [self.recogniser.apply(nets["recogniser"], x) for x in (image, result)]
        return {"psnr": psnr(image, result), "id_similarity": 1.0 - losses.identity(*faces)}

    def pictures(self, params, nets, batch):
        """Images above their reconstructions."""
        del nets
        image = to_float(batch["image"][:8])
        return [image, self.vqgan.apply({"params": params["vqgan"]}, image)[0]]


def to_rgb(vqgan, hidden):
    """The decoder's last convolution alone."""
    return vqgan.to_rgb(hidden)


def psnr(image, result):
    """Peak signal-to-noise ratio in dB of [-1, 1] images [b h w 3], the result clipped -> [b]."""
    error = jnp.mean(jnp.square(image - jnp.clip(result, -1.0, 1.0)), axis=(1, 2, 3))
    return 10.0 * jnp.log10(4.0 / jnp.maximum(error, 1e-10))


STAGE = VQGANStage
