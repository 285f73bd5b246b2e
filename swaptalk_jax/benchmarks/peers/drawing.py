"""Comparisons as lines of text, and as an SVG of their ratios."""

import numpy as np

from data_pipelines.html import markup

WIDTH, LEFT, RIGHT, TALL = 760, 330, 700, 34  # px of the plot, its axis, and a row
OURS, THEIRS, SOFT = "#067647", "#b42318", "#667085"
COLUMNS = f"{'what':40} {'peer':17} {'ours':>12} {'peer':>12}  ratio (min to max)"


def table(found):
    """Lines of text: the columns' names, then a line for each comparison."""
    return [COLUMNS, *map(line, found)]


def line(row):
    """One comparison: seconds a unit of both, medians; the ratio's median and spread."""
    ours, theirs, ratio = (np.median(row[k]) for k in ("ours", "theirs", "ratios"))
    spread = f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}"
    return (
        f"{row['name']:40} {row['peer']:17} {_seconds(ours):>12} {_seconds(theirs):>12}"
        f"  {ratio:.2f}x ({spread}; {len(row['ratios'])} turns, per {row['unit']})"
    )


def plot(found):
    """An SVG of its own: a row's median ratio with its least and greatest, on a log scale."""
    ratios = [r for row in found for r in row["ratios"]]
    low, high = min(0.5, *ratios) / 1.1, max(2.0, *ratios) * 1.1

    def x(ratio):
        return LEFT + (RIGHT - LEFT) * np.log(ratio / low) / np.log(high / low)

    parts, bottom = [], 40 + TALL * len(found)
    for tick in _ticks(low, high):
        dash = "" if tick == 1 else " stroke-dasharray='2 4'"
        parts.append(
            f"<line x1='{x(tick):.1f}' x2='{x(tick):.1f}' y1='32' y2='{bottom}' stroke='{SOFT}'"
            f"{dash}/><text x='{x(tick):.1f}' y='{bottom + 16}' text-anchor='middle'>{tick:g}x"
            "</text>"
        )
    for i, row in enumerate(found):
        median, y = np.median(row["ratios"]), 40 + TALL * (i + 0.5)
        colour = OURS if median >= 1 else THEIRS
        ends = [x(f(row["ratios"])) for f in (min, max)]
        parts.append(
            f"<text x='{LEFT - 10}' y='{y + 4}' text-anchor='end' fill='#1d2330'>"
            f"{markup.text(row['name'])}, {markup.text(row['peer'])}</text>"
            f"<line x1='{ends[0]:.1f}' x2='{ends[1]:.1f}' y1='{y}' y2='{y}' stroke='{colour}'"
            f" stroke-width='3'/><circle cx='{x(median):.1f}' cy='{y}' r='5' fill='{colour}'/>"
            f"<text x='{ends[1] + 9:.1f}' y='{y + 4}' fill='{colour}'>{median:.2f}x</text>"
        )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {bottom + 26}'"
        f" font-family='sans-serif' font-size='12' fill='{SOFT}'>"
        f"<rect width='{WIDTH}' height='{bottom + 26}' fill='#ffffff'/>"
        "<text x='10' y='20' fill='#1d2330'>The peer's time by ours (above 1, ours is faster):"
        f" median, least and greatest of turns</text>{''.join(parts)}</svg>\n"
    )


def _ticks(low, high):
    """Round numbers between both, 1 always among them."""
    ticks = [m * 10.0**e for e in range(-4, 5) for m in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) <= 8 else [t for t in inside if np.log10(t) % 1 == 0]


def _seconds(value):
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"
