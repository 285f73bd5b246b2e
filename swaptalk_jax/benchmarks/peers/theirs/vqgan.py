"""taming-transformers' VQGAN: its encoder, quantiser and decoder, of the shapes of our VQGAN.

Its own class VQModel needs pytorch_lightning and its loss, so the parts are put together here as
VQModel.forward does. The step's loss is L1 and the quantiser's, as on our side: the critic and
VGG16 would be networks of others on both.
"""

import settings
import torch
from torch import nn


def forward(fields):
    """(settle, work, facts) of encode, quantise, decode."""
    built = _built(fields)
    return built and (*settings.forward(built[0], built[1]), built[2])


def step(fields):
    """(settle, work, facts) of a training step."""
    built = _built(fields)
    return built and (*settings.step(built[0], _loss, built[1]), built[2])


def _loss(model, image):
    result, quantising = model(image)
    return (image - result).abs().mean() + quantising


def _built(fields):
    """(module, images, facts) of the fields of our VQGAN."""
    from taming.modules.diffusionmodules.model import Decoder, Encoder
    from taming.modules.vqvae.quantize import VectorQuantizer2

    if fields is None:
        return None
    known, model, size = settings.begin(), fields["model"], fields["size"]
    width, dim, multipliers = model["width"], model["embed_dim"], tuple(model["multipliers"])
    deepest = size // 2 ** (len(multipliers) - 1)
    shapes = dict(
        ch=width,
        out_ch=3,
        ch_mult=multipliers,
        num_res_blocks=model["blocks"],
        attn_resolutions=[deepest] if model["attention"] else [],
        in_channels=3,
        resolution=size,
        z_channels=dim,
        double_z=False,
    )

    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = Encoder(**shapes), Decoder(**shapes)
            self.quantize = VectorQuantizer2(model["codes"], dim, beta=0.25)
            self.before, self.after = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)

        def forward(self, image):
            z, quantising, _ = self.quantize(self.before(self.encoder(image)))
            return self.decoder(self.after(z)), quantising

    module = Parts()
    image = torch.rand(fields["count"], 3, size, size) * 2 - 1
    return module, image, settings.facts(known, module)
