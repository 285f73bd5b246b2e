"""How good is a bundle, on people whom training never saw?

    python -m swaptalk_jax.evaluate --bundle=runs/tiny/bundle --data=runs/tiny/data \
        --codes=runs/tiny/codes --out=runs/tiny

Writes evaluation.json (all numbers), report.html (numbers, pictures, loss curves) and result.jpg
(source, target, truth, result of eight swaps) into --out.
What a number means stands in measures.py.
"""

import dataclasses
import json
import operator
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from data_pipelines import files
from data_pipelines.records import kinds
from swaptalk_jax import command, errors
from swaptalk_jax.evaluation import metrics, report
from swaptalk_jax.evaluation.split import ValidationSplit
from swaptalk_jax.inference import swaptalk
from swaptalk_jax.pictures import grid, save_picture

# What a bundle must reach to be worth showing. The words of a tiny bundle are no benchmark: these
# bounds say that every stage has learned its task.
THRESHOLDS = {
    "vqgan/psnr": (">=", 25.0),  # dB
    "vqgan/codes_used_upper": (">=", 0.5),
    "vqgan/codes_used_lower": (">=", 0.5),
    "expert/accuracy": (">=", 0.9),
    "swap/id_retrieval": (">=", 0.9),
    "sync/mouth_error_ratio": ("<=", 0.5),
}
COMPARE = {">=": operator.ge, "<=": operator.le}


def evaluate(pipe, data, codes):
    """(evaluation dict, pictures for the report) of a pipeline.SwapTalk on the split "val".

    data: root of frames and triples; codes: root of codes and swaps, made by the bundle's VQGAN.
    Raises RecordError where a set is missing or does not belong to the bundle.
    """
    began = time.monotonic()
    split = ValidationSplit(pipe, data, codes)
    numbers, examples, pictures = {}, {}, {}
    for measure in metrics.ALL:
        for known, new in zip((numbers, examples, pictures), measure(pipe, split), strict=True):
            known |= new
    checked = {
        name: {
            "value": numbers[name],
            "bound": f"{sign} {bound:g}",
            "passed": bool(COMPARE[sign](numbers[name], bound)),
        }
        for name, (sign, bound) in THRESHOLDS.items()
    }
    return numbers | {
        "thresholds": checked,
        "passed": all(check["passed"] for check in checked.values()),
        "examples": examples,
        "bundle": {k: pipe.config[k] for k in ("size", "image_size", "vqgan", "model", "steps")},
        "rules": dataclasses.asdict(pipe.rules),
        "seconds": round(time.monotonic() - began, 1),
    }, pictures


def faces(rows):
    """One picture of rows (source, target, truth, result), two of them side by side."""
    pairs = zip(rows[::2], rows[1::2], strict=False)
    return grid([np.stack([*left, *right]) for left, right in pairs], scale_to=128)


def main(_):
    """Command line."""
    command.quiet()
    c = flags.FLAGS
    out = Path(c.out)
    try:
        pipe = swaptalk.SwapTalk(c.bundle, c.batch_size)
        pipe.rules = pipe.rules.changed(c.warp, c.quantize)
        evaluation, pictures = evaluate(pipe, c.data, c.codes)
        files.replace(out / "evaluation.json", json.dumps(evaluation, indent=1).encode())
        page = report.page(evaluation, pictures, Path(c.workdir or out), c.clip)
        files.replace(out / "report.html", page.encode())
        save_picture(out / "result.jpg", faces(pictures["swap"]))
    except (errors.CheckpointError, kinds.RecordError) as error:
        raise SystemExit(f"[evaluate] {error}") from error
    for name, check in evaluation["thresholds"].items():
        verdict = "pass" if check["passed"] else "FAIL"
        print(f"[evaluate] {verdict}  {name:26} {check['value']:8.3f}  {check['bound']}")
    if "second/id_retrieval" not in evaluation:
        print("[evaluate] identities were judged by the bundle's own recogniser alone; dlib's is")
        print("[evaluate] asked too after: pip install -e '.[media]'")
    print(f"[evaluate] {out}/evaluation.json and report.html, in {evaluation['seconds']} s")
    if c.require and not evaluation["passed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    flags.DEFINE_string("bundle", None, "Folder that swaptalk_jax.export wrote.")
    flags.DEFINE_string("data", None, "Root of frames, clips and triples (data_pipelines.build).")
    flags.DEFINE_string("codes", None, "Root of codes and swaps (swaptalk_jax.encode).")
    flags.DEFINE_string("out", None, "Folder for evaluation.json and report.html.")
    flags.DEFINE_string("workdir", None, "Folder of the stages' runs, for curves; default: --out.")
    flags.DEFINE_string("clip", None, "A video to show in the report, as infer writes it.")
    flags.DEFINE_bool("require", False, "Exit with 1 where a number misses its bound.")
    flags.DEFINE_enum(*swaptalk.WARP_FLAG)
    flags.DEFINE_enum(*swaptalk.QUANTIZE_FLAG)
    flags.DEFINE_integer("batch_size", 16, "Examples that are worked on at once.", lower_bound=1)
    flags.mark_flags_as_required(["bundle", "data", "codes", "out"])
    app.run(main)
