"""report.html: an evaluation as one page that needs no other file and no network."""

import base64
import html
import json
import math
from pathlib import Path

import numpy as np

from data_pipelines.html import markup
from swaptalk_jax.weights.bundle import NOTICE

EMBEDDED = 8 << 20  # bytes of a clip that are put into the page; a larger one is linked
MEANING = {
    "vqgan/psnr": "Reconstruction of a frame through its codes, dB",
    "vqgan/blockiness": "How much the grid of cells shows, 1 as in the frame",
    "vqgan/codes_used_upper": "Codes in use, upper half of the face",
    "vqgan/codes_used_lower": "Codes in use, lower half of the face",
    "expert/accuracy": "Lip expert: in sync or not?",
    "swap/error_ratio": "Error of the swapped face, against leaving the target's",
    "sync/mouth_error_ratio": "Error of the mouth, against leaving the reference's lips",
}
STYLE = """
.strip { display: grid; grid-template-columns: 88px 1fr; gap: 8px 10px; align-items: center;
  margin-bottom: 12px; } .strip .reference { grid-row: span 2; }
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
        _swaps(pictures.get("swap", ())),
        _strips(pictures.get("sync", ())),
        _reconstructions(pictures.get("reconstruction", ())),
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
        f"<tr><td><code>{name}</code><td class=n>{value:.4f}<td class=n>{examples.get(name, '')}"
        for name, value in sorted(evaluation.items())
        if "/" in name
    )
    return f"<h2>All numbers</h2><table><tr><th>Key<th>Value<th>Examples{rows}</table>"


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


def _swaps(rows):
    names = ("Source", "Target", "Truth", "Result")
    cards = [f"<div class='card faces'>{markup.figures(names, row)}</div>" for row in rows]
    return markup.section(
        "Face swap",
        "The source's identity with the target's pose, expression and background. Truth is the "
        "proxy swapper's result.",
        f"<div class=grid>{''.join(cards)}</div>",
        rows,
    )


def _strips(strips):
    parts = []
    for reference, truth, results in strips:
        parts.append(
            f"<div class='card strip'><div class=reference>{markup.picture(reference, 'reference')}"
            "<p class=label>Reference</p></div>"
            f"<div>{_row(truth, 'truth')}<p class=label>Truth</p></div>"
            f"<div>{_row(results, 'result')}<p class=label>Result</p></div></div>"
        )
    return markup.section(
        "Lip-sync",
        "The lips of the reference, the first frame, made to say the clip's sound; each frame "
        "keeps its own upper half.",
        "".join(parts),
        strips,
    )


def _reconstructions(pairs):
    cards = [
        f"<div class='card faces'>{markup.figures(('Frame', 'Reconstruction'), pair)}</div>"
        for pair in pairs
    ]
    grid = "<div class=grid style='grid-template-columns: repeat(auto-fill, minmax(230px, 1fr))'>"
    return markup.section(
        "Latent space",
        "Frames and what is left of them in codes.",
        grid + "".join(cards) + "</div>",
        pairs,
    )


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


def _row(images, name):
    return markup.picture(np.concatenate([markup.shrunk(image) for image in images], axis=1), name)
