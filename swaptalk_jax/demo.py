"""A first clip in a minute: the bundle that comes with the package, and two drawn people.

    python -m swaptalk_jax.demo --out=demo

Draws two people who speak. Puts the first one's face onto the second one, who then says the first
one's words. Writes `result.mp4`, and source, target and result side by side, as .mp4 and .gif.
The bundle knows drawn faces only. For real ones, train one on your own videos: docs/data.md.
"""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from data_pipelines import files
from data_pipelines.media import audio, read_video, write_video
from data_pipelines.synthetic import sampling
from swaptalk_jax import command
from swaptalk_jax.inference import swaptalk
from swaptalk_jax.inference.edit import infer
from swaptalk_jax.inference.mark import MARK

BUNDLE = Path(__file__).parent / "demo_bundle"
SIDE, FRAMES = 256, 75  # pixels, and three seconds


def report(line):
    """Tells a line of progress."""
    print(f"[demo] {line}", flush=True)


def main(values):
    """Draws, infers, and puts the three clips side by side; values: those of the flags."""
    out = Path(values.out)
    command.keep_compiled(out / "compiled")  # not beside the bundle, which may be read-only
    pipe = swaptalk.SwapTalk(values.bundle)
    drawn = out / "drawn"
    report(f"two people are drawn into {drawn}")
    sampling.write(drawn, seed=values.seed, identities=2, clips=1, frames=FRAMES, size=SIDE)
    source, target = (drawn / sampling.file_of(who, 0) for who in range(2))
    result = out / "result.mp4"
    infer(pipe, source, target, result, source, report=report)
    side_by_side(out / "side_by_side.mp4", [source, target, result], source)
    report(f"{result}: the first one's face and words on the second one, marked as AI-generated")
    report(f"{out / 'side_by_side.mp4'} and .gif: source, target and result")


def side_by_side(path, clips, sound):
    """Writes clips of one height and of 25 frames a second beside one another.

    path: .mp4, with this sound; a .gif of every second frame, smaller, stands beside it.
    """
    samples = audio.read_audio(sound, rate=None, mono=False)
    rows = zip(*(read_video.read_frames(clip) for clip in clips), strict=False)
    frames = [np.hstack(row) for row in rows]
    write_video.write_video(path, frames, Fraction(25), samples, MARK)
    pictures = [Image.fromarray(frame) for frame in frames[::2]]
    pictures = [picture.resize([5 * side // 8 for side in picture.size]) for picture in pictures]
    # One palette for all frames, with what is rare in it, such as lips.
    some = Image.fromarray(np.vstack(pictures[::6]))
    palette = some.quantize(256, method=Image.Quantize.MAXCOVERAGE)
    dither = Image.Dither.FLOYDSTEINBERG
    pictures = [picture.quantize(palette=palette, dither=dither) for picture in pictures]
    buffer = io.BytesIO()
    options = {"save_all": True, "append_images": pictures[1:], "duration": 80, "loop": 0}
    pictures[0].save(buffer, "GIF", comment=MARK["comment"], **options)
    files.replace(path.with_suffix(".gif"), buffer.getvalue())


if __name__ == "__main__":
    flags.DEFINE_string("out", "demo", "Folder for the clips.")
    flags.DEFINE_string("bundle", str(BUNDLE), "Another bundle of drawn people.")
    flags.DEFINE_integer("seed", 1, "Another number draws other people.", lower_bound=0)
    command.start("demo", main, stopped="stopped")
