"""Swap and lip-sync chained in RGB, a frame at a time: inswapper-128, then Wav2Lip at 96 px.

Wav2Lip's generator is the checkout's. Inswapper's network is written here after its public graph,
with random weights: speed does not ask for more. The swapped face is made smaller for Wav2Lip
within PyTorch. Finding faces, cropping and pasting are left out, as they are on our side.
"""

import settings
import torch
import torch.nn.functional as F
from torch import nn

FACE, LIPS, WIDTH = 128, 96, 512  # px of both networks' pictures; numbers of an identity
MEL = (1, 80, 16)  # a frame's sound, as Wav2Lip hears it


def swap_then_sync(fields):
    """(settle, work, facts) of `count` frames."""
    from models import Wav2Lip

    if fields is None:
        return None
    known, count = settings.begin(), fields["count"]
    swap, sync = (_ready(module) for module in (Inswapper(), Wav2Lip()))
    face, identity = settings.last(torch.rand(count, 3, FACE, FACE)), torch.randn(count, WIDTH)
    sound = torch.randn(count, *MEL)

    def work():
        with torch.inference_mode():
            swapped = F.interpolate(swap(face, identity), (LIPS, LIPS), mode="bilinear")
            masked = swapped.clone()
            masked[:, :, LIPS // 2 :] = 0
            sync(sound, torch.cat([masked, swapped], dim=1))

    return work, work, settings.facts(known, swap, sync)


def _ready(module):
    return module.eval().to(memory_format=torch.channels_last)


class Inswapper(nn.Module):
    """(face [b 3 128 128] in 0..1, identity [b 512]) -> face [b 3 128 128] in 0..1.

    Convolutions to 1024 channels at 32 x 32, six residual blocks whose instance norms the identity
    scales and shifts, and up again: 138.5 M parameters, the 554 MB of inswapper_128.onnx.
    """

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 128, 7), nn.Conv2d(128, 3, 7)
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride, 1)
            for a, b, stride in ((128, 256, 1), (256, 512, 2), (512, 1024, 2))
        )
        self.styled = nn.ModuleList(_Styled(1024) for _ in range(12))
        self.up = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in ((1024, 512), (512, 256), (256, 128))
        )

    def forward(self, face, identity):
        """See the class."""
        x = F.leaky_relu(self.first(F.pad(face, [3] * 4, "reflect")), 0.2)
        for layer in self.down:
            x = F.leaky_relu(layer(x), 0.2)
        for one, two in zip(self.styled[::2], self.styled[1::2], strict=True):
            x = x + two(F.relu(one(x, identity)), identity)
        for level, layer in enumerate(self.up):
            if level < 2:
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
            x = F.leaky_relu(layer(x), 0.2)
        return (torch.tanh(self.last(F.pad(x, [3] * 4, "reflect"))) + 1) / 2


class _Styled(nn.Module):
    """A convolution, and an instance norm whose scale and shift are linear in the identity."""

    def __init__(self, channels):
        super().__init__()
        self.kernel = nn.Conv2d(channels, channels, 3)
        self.style = nn.Linear(WIDTH, 2 * channels)

    def forward(self, x, identity):
        scale, shift = self.style(identity)[:, :, None, None].chunk(2, dim=1)
        return F.instance_norm(self.kernel(F.pad(x, [1] * 4, "reflect"))) * scale + shift
