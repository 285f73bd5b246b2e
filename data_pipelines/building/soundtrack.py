"""The sound of a video's span, and the frames that it covers."""

from fractions import Fraction

import numpy as np

from data_pipelines.media import audio
from data_pipelines.mouth_and_sound import MARGIN
from data_pipelines.rates import FRAME_RATE, SAMPLE_RATE, SAMPLES


class Soundtrack:
    """The sound of a video's span, with MARGIN more on both sides where the file has it."""

    def __init__(self, source):
        lead = min(source.start, Fraction(MARGIN, FRAME_RATE))
        end = None if source.end is None else source.end + Fraction(MARGIN, FRAME_RATE)
        samples, _ = audio.read_audio(
            source.path, rate=SAMPLE_RATE, start=source.start - lead, end=end
        )
        self._samples = _int16(samples)
        self._lead = round(lead * SAMPLE_RATE)
        last = None if source.end is None else round((source.end - source.start) * SAMPLE_RATE)
        inside = np.flatnonzero(self._samples[self._lead :][:last])
        # Frames [first, end) lie between the first and the last sample that is not zero.
        self.first = int(inside[0]) // SAMPLES if len(inside) else 0
        self.end = -(-(int(inside[-1]) + 1) // SAMPLES) if len(inside) else 0

    def any(self):
        """Whether anything is heard."""
        return self.end > self.first

    def cut(self, first, end):
        """Of frames [first, end) -> int16 [640 (end - first)]; silence beyond the file."""
        a, b = first * SAMPLES + self._lead, end * SAMPLES + self._lead
        part = self._samples[max(a, 0) : max(b, 0)]
        before = max(0, -a)
        return np.pad(part, (before, b - a - before - len(part)))


def _int16(samples):
    return np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
