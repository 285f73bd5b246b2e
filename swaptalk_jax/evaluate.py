"""How good is a bundle, on people whom training never saw?

    python -m swaptalk_jax.evaluate --bundle=runs/tiny/bundle --data=runs/tiny/data \
        --codes=runs/tiny/codes --out=runs/tiny

Writes evaluation.json (all numbers), report.html (numbers, pictures, loss curves) and result.jpg
(source, target, truth, result of the worst, the median and the best swaps) into --out.
What a number means stands in evaluation/metrics/.
"""

from absl import flags

from swaptalk_jax import command
from swaptalk_jax.evaluation import evaluation
from swaptalk_jax.evaluation.metrics.perceptual import Perceptual
from swaptalk_jax.inference import swaptalk


def main(c):
    """Measures, writes and tells; c: the flags' values. Returns the exit code."""
    pipe = swaptalk.SwapTalk(c.bundle, c.batch_size)
    pipe.rules = pipe.rules.changed(c.warp, c.quantize)
    perceptual = Perceptual(c.perceptual) if c.perceptual else None
    found, pictures = evaluation.evaluate(pipe, c.data, c.codes, perceptual)
    evaluation.write(found, pictures, c.out, c.workdir, c.clip)
    for line in evaluation.lines(found):
        print(f"[evaluate] {line}")
    print(f"[evaluate] {c.out}/evaluation.json and report.html, in {found['seconds']} s")
    return int(c.require and not found["passed"])


if __name__ == "__main__":
    flags.DEFINE_string("bundle", None, "Folder that swaptalk_jax.export wrote.")
    flags.DEFINE_string("data", None, "Root of frames, clips and triples (data_pipelines.build).")
    flags.DEFINE_string("codes", None, "Root of codes and swaps (swaptalk_jax.encode).")
    flags.DEFINE_string("out", None, "Folder for evaluation.json and report.html.")
    flags.DEFINE_string("workdir", None, "Folder of the stages' runs, for curves; default: --out.")
    flags.DEFINE_string("perceptual", "", "Folder of a perceptual network, for LPIPS.")
    flags.DEFINE_string("clip", None, "A video to show in the report, as infer writes it.")
    flags.DEFINE_bool("require", False, "Exit with 1 where a number misses its bound.")
    flags.DEFINE_string(*command.CACHE_FLAG)
    flags.DEFINE_enum(*swaptalk.WARP_FLAG)
    flags.DEFINE_enum(*swaptalk.QUANTIZE_FLAG)
    flags.DEFINE_integer("batch_size", 16, "Examples that are worked on at once.", lower_bound=1)
    flags.mark_flags_as_required(["bundle", "data", "codes", "out"])
    command.start("evaluate", main)
