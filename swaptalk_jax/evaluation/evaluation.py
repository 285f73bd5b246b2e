"""All metrics of a bundle, and the bounds that it must reach."""

import dataclasses
import json
import operator
import time
from pathlib import Path

import numpy as np

from data_pipelines import files
from swaptalk_jax.evaluation import metrics, report
from swaptalk_jax.evaluation.split import ValidationSplit
from swaptalk_jax.pictures import grid, save_picture

# What a bundle must reach to be worth showing. The words of a tiny bundle are no benchmark: these
# bounds say that every stage has learned its task.
THRESHOLDS = {
    "vqgan/psnr": (">=", 25.0),  # dB
    "vqgan/blockiness": ("<=", 1.3),
    "vqgan/codes_used_upper": (">=", 0.5),
    "vqgan/codes_used_lower": (">=", 0.5),
    "expert/accuracy": (">=", 0.9),
    "swap/error_ratio": ("<=", 0.5),
    "sync/mouth_error_ratio": ("<=", 0.5),
}
COMPARE = {">=": operator.ge, "<=": operator.le}


def evaluate(pipe, data, codes, perceptual=None):
    """(evaluation dict, pictures for the report) of a swaptalk.SwapTalk on the split "val".

    data: root of frames and triples; codes: root of codes and swaps, made by the bundle's VQGAN;
    perceptual: a metrics.perceptual.Perceptual, without which there is no LPIPS.
    Raises RecordError where a set is missing or does not belong to the bundle.
    """
    began = time.monotonic()
    split = ValidationSplit(pipe, data, codes, perceptual)
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
    """One picture of rows (source, target, truth, result), two of them side by side.

    rows: {"Worst eighth" and so on: rows}, in this order.
    """
    rows = [row for found in rows.values() for row in found]
    pairs = zip(rows[::2], rows[1::2], strict=False)
    return grid([np.stack([*left, *right]) for left, right in pairs], scale_to=128)


def write(evaluation, pictures, out, workdir=None, clip=None):
    """Writes evaluation.json, report.html and result.jpg into the folder `out`.

    evaluation, pictures: of `evaluate`. workdir: folder of the stages' runs, for their curves;
    None: `out`. clip: path of a video to show, or None.
    """
    out = Path(out)
    files.replace(out / "evaluation.json", json.dumps(evaluation, indent=1).encode())
    page = report.page(evaluation, pictures, Path(workdir or out), clip)
    files.replace(out / "report.html", page.encode())
    save_picture(out / "result.jpg", faces(pictures["swap"]))


def lines(evaluation):
    """The verdict on each bound, in words."""
    told = []
    for name, check in evaluation["thresholds"].items():
        verdict = "pass" if check["passed"] else "FAIL"
        told.append(f"{verdict}  {name:26} {check['value']:8.3f}  {check['bound']}")
    if "second/id_retrieval" not in evaluation:
        told.append("identities were judged by the bundle's own recogniser alone; dlib's is")
        told.append("asked too after: pip install -e '.[media]'")
    if "lips/correlation" not in evaluation:
        told.append("how far lips open was not measured: it needs dlib (the extra `media`) and")
        told.append("clips whose lips move")
    return told
