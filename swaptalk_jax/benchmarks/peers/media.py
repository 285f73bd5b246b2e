"""What both loaders read: records for ours; pictures, sound and videos of one size for a peer's."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from scipy.io import wavfile

from data_pipelines.media import write_video
from data_pipelines.rates import FRAME_RATE, SAMPLE_RATE
from data_pipelines.synthetic import random_records

CLIPS, FRAMES, SIZE = 16, 75, 256  # of a peer's media; pixels of a side of a face
CELL, AUDIO_WIDTH = 16, 80  # of our records: pixels of a cell's side, bands of sound


def write(folder, codes_size):
    """Writes `records` (clips of codes of pictures of codes_size px) and `media` into a folder.

    media: a folder of numbered JPEGs with audio.wav for each clip, as Wav2Lip's preprocess.py
    leaves them; an mp4 for each; and filelists/train.txt, Wav2Lip's list of clips.
    """
    folder = Path(folder)
    side = codes_size // CELL
    sizes = {"size": codes_size, "grid": (side, side), "audio_width": AUDIO_WIDTH, "embedding": 1}
    random_records.write(folder / "records", sizes, count=CLIPS, wanted=("codes",))
    media, rng = folder / "media", np.random.default_rng(0)
    for i in range(CLIPS):
        clip = media / f"clip{i}"
        clip.mkdir(parents=True)
        picture = random_records.picture(SIZE, rng)
        frames = [np.roll(picture, k, axis=1) for k in range(FRAMES)]
        for k, frame in enumerate(frames):
            cv2.imwrite(str(clip / f"{k}.jpg"), frame)
        sound = rng.normal(0, 0.1, FRAMES * SAMPLE_RATE // FRAME_RATE).astype(np.float32)
        wavfile.write(clip / "audio.wav", SAMPLE_RATE, np.int16(sound.clip(-1, 1) * 32767))
        write_video.write_video(
            media / f"clip{i}.mp4", frames, Fraction(FRAME_RATE), (sound, SAMPLE_RATE)
        )
    lists = media / "filelists"
    lists.mkdir()
    (lists / "train.txt").write_text("".join(f"clip{i}\n" for i in range(CLIPS)))
