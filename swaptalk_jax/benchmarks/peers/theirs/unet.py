"""UNets of latent diffusion with the shapes of our lip UNet: CompVis' own, and LatentSync's.

CompVis' asks for omegaconf's ListConfig in one isinstance, LatentSync's utils import libraries for
video: inert modules stand in for these where they are missing. LatentSync's is built without motion
modules, of one frame a clip. Blocks keep what they computed: both sides have the memory. The step's
loss is a mean squared error, as on our side.
"""

import settings
import stand_ins
import torch


def forward(fields):
    """(settle, work, facts) of latent-diffusion's UNetModel."""
    return _forward(_compvis, fields)


def step(fields):
    """(settle, work, facts) of a training step of latent-diffusion's UNetModel."""
    return _step(_compvis, fields)


def latentsync_forward(fields):
    """(settle, work, facts) of LatentSync's UNet3DConditionModel."""
    return _forward(_latentsync, fields)


def latentsync_step(fields):
    """(settle, work, facts) of a training step of LatentSync's UNet3DConditionModel."""
    return _step(_latentsync, fields)


def _forward(build, fields):
    built = build(fields)
    return built and (*settings.forward(built[0], *_inputs(fields)), built[1])


def _step(build, fields):
    built = build(fields)
    return built and (*settings.step(built[0], _loss, *_inputs(fields)), built[1])


def _loss(module, x, moment, context):
    return (module(x, moment, context) - x).square().mean()


def _inputs(fields):
    """x [b d h w], time [b], context [b n k]; our linear layer of the sound is left out."""
    model, (h, w) = fields["model"], fields["grid"]
    count, tokens = fields["count"], fields["tokens"]
    return (
        torch.randn(count, model["embed_dim"], h, w),
        torch.full((count,), 500),
        torch.randn(count, tokens, model["context_width"]),
    )


def _compvis(fields):
    stand_ins.allow("omegaconf")
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    if fields is None:
        return None
    known, model = settings.begin(), fields["model"]
    module = UNetModel(
        image_size=max(fields["grid"]),
        in_channels=model["embed_dim"],
        out_channels=model["embed_dim"],
        model_channels=model["width"],
        num_res_blocks=model["blocks"],
        attention_resolutions=[2**level for level in model["attention_levels"]],
        channel_mult=tuple(model["multipliers"]),
        num_heads=model["heads"],
        use_spatial_transformer=True,
        context_dim=model["context_width"],
    )
    for block in module.modules():
        if hasattr(block, "checkpoint"):
            block.checkpoint = False
    return module, settings.facts(known, module)


def _latentsync(fields):
    import diffusers.models  # noqa: F401  before what stands in, whose absence it looks up

    stand_ins.allow("matplotlib", "imageio", "torchvision", "decord", "cv2")
    from latentsync.models.unet import UNet3DConditionModel

    if fields is None:
        return None
    known, model = settings.begin(), fields["model"]
    with_attention = [i in model["attention_levels"] for i in range(len(model["multipliers"]))]
    module = UNet3DConditionModel(
        in_channels=model["embed_dim"],
        out_channels=model["embed_dim"],
        down_block_types=["CrossAttnDownBlock3D" if a else "DownBlock3D" for a in with_attention],
        mid_block_type="UNetMidBlock3DCrossAttn",
        up_block_types=["CrossAttnUpBlock3D" if a else "UpBlock3D" for a in with_attention[::-1]],
        block_out_channels=[model["width"] * m for m in model["multipliers"]],
        layers_per_block=model["blocks"],
        cross_attention_dim=model["context_width"],
        attention_head_dim=model["heads"],
        use_motion_module=False,
        add_audio_layer=True,
    )

    class OneFrame(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = module

        def forward(self, x, moment, context):
            return self.unet(x[:, :, None], moment, context, return_dict=False)[0][:, :, 0]

    return OneFrame(), settings.facts(known, module)
