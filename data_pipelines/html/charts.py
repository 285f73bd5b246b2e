"""Histograms as inline SVG, for the page of a build."""

import math

import numpy as np

from data_pipelines.html import markup

WIDTH, HEIGHT, BINS = 320, 120, 31
LEFT, RIGHT, TOP, BOTTOM = 6, 314, 24, 100


def histogram(title, kept, refused, unit="", gates=(), whole=False):
    """A card: how often each value occurs, kept clips with refused ones stacked on top.

    kept, refused: finite numbers. Values beyond the 1st and 99th percentile are counted in the end
    bins, so that one odd file doesn't squeeze the rest. gates: values at which dashed lines stand.
    whole: values are integers and each has its own bin. Nothing at all where there is no value.
    """
    values = np.array([*kept, *refused], float)
    if not len(values):
        return ""
    edges = _edges(values, whole)
    inside = np.nextafter(edges[-1], -np.inf)
    counts = [np.histogram(np.clip(v, edges[0], inside), edges)[0] for v in (kept, refused)]
    top = max(1, int(sum(counts).max()))
    width = (RIGHT - LEFT) / (len(edges) - 1)
    bars, floors = [], np.zeros(len(edges) - 1)
    for count, colour in zip(counts, ("var(--mark)", "var(--bad)"), strict=True):
        for i in np.flatnonzero(count):
            tall = (BOTTOM - TOP) * count[i] / top
            bars.append(
                f"<rect x='{LEFT + i * width:.1f}' y='{BOTTOM - floors[i] - tall:.1f}' "
                f"width='{width - 1:.1f}' height='{tall:.1f}' fill='{colour}'>"
                f"<title>{count[i]} at {_range(edges, i, whole)}</title></rect>"
            )
        floors += (BOTTOM - TOP) * count / top
    lines = [
        f"<line x1='{x:.1f}' x2='{x:.1f}' y1={TOP - 4} y2={BOTTOM} stroke='#f79009' "
        "stroke-dasharray='3 3' />"
        for x in (_x(gate, edges) for gate in gates if edges[0] <= gate <= edges[-1])
    ]
    low, high = (edges[0] + 0.5, edges[-1] - 0.5) if whole else (edges[0], edges[-1])
    median = f"median {_short(float(np.median(kept or refused)))} {unit}".strip()
    return (
        f"<div class=card><svg viewBox='0 0 {WIDTH} {HEIGHT}' font-size=11 fill='#667085'>"
        f"<text x={LEFT} y=12 fill='#1d2330'>{markup.text(title)}</text>"
        f"<text x={RIGHT} y=12 text-anchor=end>{markup.text(median)}</text>"
        f"{''.join(bars)}{''.join(lines)}"
        f"<line x1={LEFT} x2={RIGHT} y1={BOTTOM} y2={BOTTOM} stroke='#e4e7ec' />"
        f"<text x={LEFT} y=114>{_short(low)}</text>"
        f"<text x={RIGHT} y=114 text-anchor=end>{_short(high)} {markup.text(unit)}</text>"
        "</svg></div>"
    )


def _edges(values, whole):
    if whole:
        return np.arange(math.floor(values.min()) - 0.5, math.ceil(values.max()) + 1)
    low, high = np.percentile(values, [1, 99])
    if high - low < 1e-9 * max(1, abs(low)):
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def _x(value, edges):
    return LEFT + (RIGHT - LEFT) * (value - edges[0]) / (edges[-1] - edges[0])


def _range(edges, i, whole):
    if whole:
        return f"{edges[i] + 0.5:g}"
    return f"{_short(float(edges[i]))} to {_short(float(edges[i + 1]))}"


def _short(value):
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
