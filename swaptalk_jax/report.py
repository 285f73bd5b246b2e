"""report.html: an evaluation as one page that needs no other file and no network."""

import base64
import html
import json
import math
from pathlib import Path

import cv2
import numpy as np

from swaptalk_jax.export import NOTICE

LARGEST = 192  # px of a face in the page; larger ones are shrunk
EMBEDDED = 8 << 20  # bytes of a clip that are put into the page; a larger one is linked
STAGES = ("identity", "vqgan", "expert", "swap", "sync")
MEANING = {
    "vqgan/psnr": "Reconstruction of a frame through its codes, dB",
    "vqgan/codes_used_upper": "Codes in use, upper half of the face",
    "vqgan/codes_used_lower": "Codes in use, lower half of the face",
    "expert/accuracy": "Lip expert: in sync or not?",
    "swap/id_retrieval": "Swapped faces recognised as the source",
    "sync/mouth_error_ratio": "Error of the mouth, against leaving the reference's lips",
}
STYLE = """
:root { color-scheme: light; --ink: #1d2330; --soft: #667085; --line: #e4e7ec; --good: #067647;
  --bad: #b42318; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #f7f8fa; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; }
p, figcaption, .soft { color: var(--soft); margin: .2rem 0 .8rem; }
.notice { border-left: 4px solid #f79009; background: #fffaeb; padding: .6rem 1rem;
  color: #7a2e0e; }
.card, table { background: #fff; border: 1px solid var(--line); border-radius: 10px; }
.grid { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(470px, 1fr)); }
.narrow { grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); }
.card { padding: 10px; } .faces { display: grid; gap: 6px; grid-auto-flow: column;
  grid-auto-columns: 1fr; } .faces figure { margin: 0; text-align: center; }
.faces figcaption, .label { font-size: 12px; margin: 0; }
img { width: 100%; border-radius: 6px; display: block; } video { width: 360px; max-width: 100%; }
.strip { display: grid; grid-template-columns: 88px 1fr; gap: 8px 10px; align-items: center;
  margin-bottom: 12px; } .strip .reference { grid-row: span 2; }
table { border-collapse: separate; border-spacing: 0; width: 100%; overflow: hidden; }
td, th { padding: .45rem .8rem; text-align: left; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; } td.n { text-align: right;
  font-variant-numeric: tabular-nums; } th { font-size: 12px; color: var(--soft); }
.pass { color: var(--good); font-weight: 600; } .fail { color: var(--bad); font-weight: 600; }
.curves { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); }
svg { width: 100%; height: auto; display: block; } code { font-size: 13px; }
@media (max-width: 520px) { .grid { grid-template-columns: 1fr; } }
"""


def page(evaluation, pictures, workdir, clip=None):
    """The page as text.

    evaluation, pictures: of evaluate.evaluate; workdir: folder of the stages' runs, for their
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
        _curves(workdir),
        _numbers(evaluation),
    ]
    head = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>SwapTalk: evaluation</title><style>{STYLE}</style>"
    )
    return f"{head}<main>{''.join(sections)}</main></html>\n"


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
    cards = [f"<div class='card faces'>{_figures(names, row)}</div>" for row in rows]
    return _section(
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
            f"<div class='card strip'><div class=reference>{_image(reference, 'reference')}"
            "<p class=label>Reference</p></div>"
            f"<div>{_row(truth, 'truth')}<p class=label>Truth</p></div>"
            f"<div>{_row(results, 'result')}<p class=label>Result</p></div></div>"
        )
    return _section(
        "Lip-sync",
        "The lips of the reference, the first frame, made to say the clip's sound; each frame "
        "keeps its own upper half.",
        "".join(parts),
        strips,
    )


def _reconstructions(pairs):
    cards = [
        f"<div class='card faces'>{_figures(('Frame', 'Reconstruction'), pair)}</div>"
        for pair in pairs
    ]
    grid = "<div class=grid style='grid-template-columns: repeat(auto-fill, minmax(230px, 1fr))'>"
    return _section(
        "Latent space",
        "Frames and what is left of them in codes.",
        grid + "".join(cards) + "</div>",
        pairs,
    )


def _curves(workdir):
    """Small charts of every stage's metrics.jsonl below workdir."""
    parts = []
    for stage in STAGES:
        path = Path(workdir) / stage / "metrics.jsonl"
        series = _series(path.read_text().splitlines()) if path.is_file() else {}
        if series:
            charts = "".join(_chart(name, points) for name, points in sorted(series.items()))
            parts.append(f"<h3>{stage}</h3><div class=curves>{charts}</div>")
    return _section("Training", "Every logged metric over the steps.", "".join(parts), parts)


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


def _section(title, text, body, content):
    """A section, or nothing where there is no content."""
    return f"<h2>{title}</h2><p>{text}</p>{body}" if len(content) else ""


def _figures(names, images):
    return "".join(
        f"<figure>{_image(image, name)}<figcaption>{name}</figcaption></figure>"
        for name, image in zip(names, images, strict=True)
    )


def _row(images, name):
    return _image(np.concatenate([_shrunk(image) for image in images], axis=1), name)


def _shrunk(image):
    scale = LARGEST / max(image.shape[:2])
    return image if scale >= 1 else cv2.resize(image, None, None, scale, scale, cv2.INTER_AREA)


def _image(image, name):
    """uint8 [h w 3] -> an <img> that holds its picture: PNG where faces are small, else JPEG."""
    image = image if image.shape[0] <= LARGEST else _shrunk(image)
    kind = "png" if image.shape[0] <= 64 else "jpeg"
    options = [] if kind == "png" else [cv2.IMWRITE_JPEG_QUALITY, 88]
    _, data = cv2.imencode(f".{kind}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    encoded = base64.b64encode(data).decode()
    return f"<img alt='{name.lower()}' src='data:image/{kind};base64,{encoded}'>"
