"""HTML that the page of a build and the report of an evaluation share: one look, no other file.

Text that others chose (names of files and people) goes through `text`, always.
"""

import base64
import html

import cv2

LARGEST = 192  # px of a face in a page; larger ones are shrunk
STYLE = """
:root { color-scheme: light; --ink: #1d2330; --soft: #667085; --line: #e4e7ec; --good: #067647;
  --bad: #b42318; --mark: #3538cd; }
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
table { border-collapse: separate; border-spacing: 0; width: 100%; overflow: hidden; }
td, th { padding: .45rem .8rem; text-align: left; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; } td.n { text-align: right;
  font-variant-numeric: tabular-nums; } th { font-size: 12px; color: var(--soft); }
.curves { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); }
svg { width: 100%; height: auto; display: block; } code { font-size: 13px; }
@media (max-width: 520px) { .grid { grid-template-columns: 1fr; } }
"""


def page(title, sections, style=""):
    """A whole document of sections (HTML), with `style` after the common one."""
    head = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{text(title)}</title><style>{STYLE}{style}</style>"
    )
    return f"{head}<main>{''.join(sections)}</main></html>\n"


def text(value):
    """Anything as text that HTML shows as it is, also within quotes."""
    return html.escape(str(value))


def section(title, explanation, body, content):
    """A section, or nothing where there is no content."""
    return f"<h2>{title}</h2><p>{explanation}</p>{body}" if len(content) else ""


def figures(names, images):
    """Pictures side by side (in a .faces), each with its name below."""
    return "".join(
        f"<figure>{picture(image, name)}<figcaption>{text(name)}</figcaption></figure>"
        for name, image in zip(names, images, strict=True)
    )


def shrunk(image, largest=LARGEST):
    """uint8 [h w 3] with no side above `largest`."""
    scale = largest / max(image.shape[:2])
    return image if scale >= 1 else cv2.resize(image, None, None, scale, scale, cv2.INTER_AREA)


def picture(image, name):
    """uint8 [h w 3] -> an <img> that holds its picture: PNG where faces are small, else JPEG."""
    image = image if image.shape[0] <= LARGEST else shrunk(image)
    return embedded(image, name, "png" if image.shape[0] <= 64 else "jpeg", 88)


def embedded(image, name, kind, quality):
    """uint8 [h w 3] -> an <img> that holds it as it is; quality is JPEG's."""
    options = [] if kind == "png" else [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, data = cv2.imencode(f".{kind}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    encoded = base64.b64encode(data).decode()
    return f"<img alt='{text(name).lower()}' src='data:image/{kind};base64,{encoded}'>"
