"""One video with another face and other words.

    python -m swaptalk_jax.infer --bundle=BUNDLE --source=face.jpg --target=clip.mp4 \
        --audio=speech.wav --out=out.mp4

The face of --source (a portrait or a clip) is put on the face of --target, which then speaks the
sound of --audio, or its own. Frame i of the output is frame i of the target; all outside of the
face, and frames without one, stay as they are. Memory does not grow with the length of the video.
"""

from absl import flags

from swaptalk_jax import command
from swaptalk_jax.inference import swaptalk
from swaptalk_jax.inference.edit import infer


def report(line):
    """Tells a line of progress."""
    print(f"[infer] {line}", flush=True)


def main(c):
    """Writes the video and tells what became of it; c: the flags' values."""
    pipe = swaptalk.SwapTalk(c.bundle, c.batch_size)
    rules = pipe.rules.changed(c.warp, c.quantize)
    files = (c.source, c.target, c.out, c.audio)
    made = infer(pipe, *files, c.mode, rules, report, c.any_face)
    seconds = float(made.frames / made.fps)
    report(f"{c.out}: {made.frames} frames at {float(made.fps):.5g} fps ({seconds:.2f} s)")
    if made.without_face:
        report(f"{made.without_face} frames show no face and were left as they are")
    report("marked as AI-generated in its metadata; show it only with the consent of those in it")


if __name__ == "__main__":
    flags.DEFINE_string("bundle", None, "Folder that swaptalk_jax.export wrote.")
    flags.DEFINE_string("source", None, "Whose face: an image or a video.")
    flags.DEFINE_string("target", None, "The video to change, of any size and frame rate.")
    flags.DEFINE_string("audio", None, "What is said: any file with sound; default: the target's.")
    flags.DEFINE_string("out", None, "The .mp4 to write.")
    flags.DEFINE_enum("mode", "auto", ["auto", "self", "cross"], "Lips of the first or each frame.")
    flags.DEFINE_bool("any_face", False, "Also with a bundle that knows drawn faces alone.")
    flags.DEFINE_string(*command.CACHE_FLAG)
    flags.DEFINE_enum(*swaptalk.WARP_FLAG)
    flags.DEFINE_enum(*swaptalk.QUANTIZE_FLAG)
    flags.DEFINE_integer("batch_size", 16, "Frames that are worked on at once.", lower_bound=1)
    flags.mark_flags_as_required(["bundle", "source", "target", "out"])
    command.start("infer", main, stopped="stopped; nothing was written")
