"""report.html: an evaluation as one page that needs no other file and no network."""

import base64
import html
import json
import math
from pathlib import Path

import numpy as np

from data_pipelines.html import markup
from swaptalk_jax.weights.bundle import NOTICE

ENLARGED = 256  # px of a face's side in the page: 4x for 64 px, 1x for 256; larger ones are shrunk
EMBEDDED = 8 << 20  # bytes of a clip that are put into the page; a larger one is linked
MEANING = {
    "vqgan/psnr": "Reconstruction of a frame through its codes, dB",
    "vqgan/blockiness": "How much the grid of cells shows, 1 as in the frame",
    "vqgan/background_hue": "Error of the background's tint, CIELAB (a, b); 2 can just be seen",
    "vqgan/codes_used_upper": "Codes in use, upper half of the face",
    "vqgan/codes_used_lower": "Codes in use, lower half of the face",
    "expert/accuracy": "Lip expert: in sync or not?",
    "swap/error_ratio": "Error of the swapped face, against leaving the target's",
    "vqgan/lpips": "How different a reconstruction looks to a perceptual network",
    "swap/lpips": "How different a swapped face looks from the true swap, to that network",
    "swap/background_hue": "The same of a swapped face, against the true swap",
    "sync/mouth_error_ratio": "Error of the mouth, against leaving the reference's lips",
    "sync/sharpness": "Sharpness of the mouth, 1 as in the true frame",
    "sync/sharpness_floor": "The same of the VQGAN's reconstruction",
    "sync/flicker": "Jitter of the mouth from frame to frame, 1 as in the true frames",
    "sync/flicker_floor": "The same of the VQGAN's reconstruction",
    "joint/sharpness": "Sharpness of the mouth after a swap, 1 as in the true swap",
    "lips/correlation": "Do lips open when the true ones do? 1: always, 0: by chance",
    "lips/correlation_ceiling": "The same of the VQGAN's reconstruction",
    "lips/correlation_floor": "The same of lips made for another clip's sound",
    "lips/movement": "How much lips move, 1 as the true ones",
    "lips/movement_ceiling": "The same of the VQGAN's reconstruction",
}
STYLE = """
main { max-width: 1140px; } h3 { margin: 1rem 0 .4rem; }
.row { display: flex; gap: 8px; margin-bottom: 10px; overflow-x: auto; }
.row figure { margin: 0; flex: none; } .row figcaption { font-size: 12px; margin: 0; }
.row img { image-rendering: pixelated; max-width: none; border-radius: 0; }
.pass { color: var(--good); font-weight: 600; } .fail { color: var(--bad); font-weight: 600; }
"""


def page(evaluation, pictures, workdir, clip=None):
    """The page as text.

    evaluation, pictures: of evaluation.evaluate; workdir: folder of the stages' runs, for their
    curves (those that are there); clip: path of a video to show, or None.
    """
    bundle = evaluation["bundle"]
    steps = ", ".join(f"{stage} {count:,}" for stage, count in bundle["steps"].items())
    sections = [
        "<h1>SwapTalk: evaluation</h1>",
        f"<p>Bundle <code>{html.escape(bundle['vqgan'])}</code>, size "
        f"{html.escape(bundle['size'])}, {bundle['image_size']} px. Steps: {steps}. Measured in "
        f"{evaluation['seconds']} s on people whom training never saw.</p>",
        f"<p class=notice>Every “result” and “reconstruction” is generated. {NOTICE}</p>",
        _thresholds(evaluation),
        _clip(clip),
        _swaps(pictures.get("swap", {})),
        _strips(pictures.get("sync", {})),
        _reconstructions(pictures.get("reconstruction", {})),
        _curves(workdir, bundle["steps"]),
        _numbers(evaluation),
    ]
    return markup.page("SwapTalk: evaluation", sections, STYLE)


def _thresholds(evaluation):
    rows = []
    for name, check in evaluation["thresholds"].items():
        verdict = "pass" if check["passed"] else "fail"
        rows.append(
            f"<tr><td>{MEANING.get(name, '')}<td><code>{name}</code>"
            f"<td class=n>{check['value']:.3f}<td class=n>{html.escape(check['bound'])}"
            f"<td class={verdict}>{verdict}"
        )
    head = "<tr><th>What<th>Key<th>Value<th>Bound<th>"
    return f"<h2>Bounds</h2><table>{head}{''.join(rows)}</table>"


def _numbers(evaluation):
    examples = evaluation["examples"]
    rows = "".join(
        f"<tr><td>{MEANING.get(name, '')}<td><code>{name}</code>"
        f"<td class=n>{value:.4f}<td class=n>{examples.get(name, '')}"
        for name, value in sorted(evaluation.items())
        if "/" in name
    )
    return f"<h2>All numbers</h2><table><tr><th>What<th>Key<th>Value<th>Examples{rows}</table>"


def _clip(path):
    if not path:
        return ""
    source = html.escape(Path(path).name)
    if Path(path).is_file() and Path(path).stat().st_size <= EMBEDDED:
        source = "data:video/mp4;base64," + base64.b64encode(Path(path).read_bytes()).decode()
    return (
        "<h2>A clip</h2><p>Swapped and lip-synced by <code>swaptalk_jax.infer</code>; generated."
        f"</p><video controls loop src='{source}'></video>"
    )


def _swaps(groups):
    names = ("Source", "Target", "Truth", "Result")
    cards = {
        caption: [f"<div class=row>{_figures(names, row)}</div>" for row in rows]
        for caption, rows in groups.items()
    }
    return _section(
        "Face swap",
        "The source's identity with the target's pose, expression and background. Truth is the "
        "proxy swapper's result. Sorted by the squared error in the face.",
        cards,
    )


def _strips(groups):
    cards = {}
    for caption, strips in groups.items():
        cards[caption] = [
            f"<div class=row>{_figures(('Reference',), (reference,))}<div>"
            f"<figure>{_row(truth, 'truth')}<figcaption>Truth</figcaption></figure>"
            f"<figure>{_row(results, 'result')}<figcaption>Result</figcaption></figure></div></div>"
            for reference, truth, results in strips
        ]
    return _section(
        "Lip-sync",
        "The lips of the reference, the first frame, made to say the clip's sound; each frame "
        "keeps its own upper half. Sorted by the error of the mouth.",
        cards,
    )


def _reconstructions(groups):
    cards = {}
    for caption, pairs in groups.items():
        both = [_figures(("Frame", "Reconstruction"), pair) for pair in pairs]
        cards[caption] = [
            f"<div class=row>{''.join(both[first : first + 2])}</div>"
            for first in range(0, len(both), 2)
        ]
    return _section(
        "Latent space", "Frames and what is left of them in codes. Sorted by their psnr.", cards
    )


def _section(title, explanation, cards):
    """A section of {caption: rows of pictures as HTML}, nothing where there are none."""
    parts = [f"<h3>{caption}</h3>{''.join(rows)}" for caption, rows in cards.items()]
    return markup.section(title, explanation, "".join(parts), parts)


def _figures(names, images):
    """Enlarged pictures, each with its name below."""
    return "".join(
        f"<figure>{_row([image], name)}<figcaption>{name}</figcaption></figure>"
        for name, image in zip(names, images, strict=True)
    )


def _row(images, name):
    """Pictures side by side as one <img>, each at about ENLARGED pixels."""
    images = [markup.shrunk(image, ENLARGED) for image in images]
    height = images[0].shape[0]
    tag = markup.embedded(
        np.concatenate(images, axis=1), name, "png" if height <= 64 else "jpeg", 92
    )
    width = max(1, ENLARGED // height) * sum(image.shape[1] for image in images)
    return tag.replace("<img ", f"<img style='width: {width}px' ", 1)


def _curves(workdir, bundled):
    """Small charts of every stage's metrics.jsonl below workdir, those of the bundle first."""
    parts = []
    found = {path.parent.name: path for path in sorted(Path(workdir).glob("*/metrics.jsonl"))}
    for stage in dict.fromkeys([*(s for s in bundled if s in found), *found]):
        series = _series(found[stage].read_text().splitlines())
        if series:
            charts = "".join(_chart(name, points) for name, points in sorted(series.items()))
            parts.append(f"<h3>{stage}</h3><div class=curves>{charts}</div>")
    return markup.section("Training", "Every logged metric over the steps.", "".join(parts), parts)


def _series(lines):
    """Lines of metrics.jsonl -> {name: [(step, value), ...]}, finite values only."""
    series = {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # the last line of a run that was killed
            continue
        for name, value in row.items():
            if name != "step" and math.isfinite(value):
                series.setdefault(name, []).append((row["step"], value))
    return series


def _chart(name, points):
    """One metric as an SVG line with its range and last value."""
    steps, values = np.array(points, float).T
    low, high = values.min(), values.max()
    x = 4 + 192 * (steps - steps[0]) / max(steps[-1] - steps[0], 1)
    y = 60 - 40 * (values - low) / max(high - low, 1e-12)
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    colour = "#067647" if name.startswith("val/") else "#3538cd"
    return (
        "<div class=card><svg viewBox='0 0 200 78' font-size=10 fill='#667085'>"
        f"<text x=4 y=11 fill='#1d2330'>{html.escape(name)}</text>"
        f"<text x=196 y=11 text-anchor=end fill='#1d2330'>{values[-1]:.4g}</text>"
        f"<polyline points='{line}' fill=none stroke='{colour}' stroke-width=1.5 />"
        f"<circle cx={x[-1]:.1f} cy={y[-1]:.1f} r=2 fill='{colour}' />"
        f"<text x=4 y=74>{low:.3g} … {high:.3g}</text>"
        f"<text x=196 y=74 text-anchor=end>step {int(steps[-1]):,}</text></svg></div>"
    )
