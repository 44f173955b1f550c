"""A page of thumbnails that one can filter, in a single HTML file."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torchvision.io import encode_jpeg

JPEG_QUALITY = 80

_STYLE = """
body { font: 14px system-ui, sans-serif; margin: 0; color: #222; }
header { position: sticky; top: 0; background: #fff; padding: 12px 16px; }
header { border-bottom: 1px solid #ddd; }
h1 { font-size: 18px; margin: 0 0 8px; }
select, input { font: inherit; padding: 4px; margin-right: 8px; }
main { display: flex; flex-wrap: wrap; gap: 12px; padding: 16px; align-items: flex-start; }
figure { margin: 0; width: 220px; }
img { max-width: 220px; display: block; border: 1px solid #ddd; }
figcaption { overflow-wrap: anywhere; font-size: 12px; color: #555; }
figure.problem figcaption b { color: #b00; }
figure.suspicious figcaption b { color: #a60; }
"""

_SCRIPT = """
const items = JSON.parse(document.getElementById("items").textContent);
const split = document.getElementById("split"), kind = document.getElementById("kind");
const label = document.getElementById("class"), text = document.getElementById("text");
const figures = [...document.querySelectorAll("figure")];
function filter() {
  let shown = 0;
  items.forEach((item, index) => {
    const fits = (!split.value || item.split === split.value)
      && (!kind.value || item.kind === kind.value)
      && (!label.value || item.classes.includes(label.value))
      && item.text.toLowerCase().includes(text.value.toLowerCase());
    figures[index].hidden = !fits;
    shown += fits;
  });
  document.getElementById("shown").textContent = `${shown} of ${items.length}`;
}
for (const control of [split, kind, label]) control.addEventListener("change", filter);
text.addEventListener("input", filter);
filter();
"""


class GalleryItem(NamedTuple):
    """An image of the page.

    Attributes:
        image: the thumbnail, (3, h, w) uint8.
        name: path of the image.
        split: its split.
        classes: names of the classes in it.
        kind: ``problem``, ``suspicious`` or ``plain``.
        reasons: what is wrong or suspicious.
    """

    image: Tensor
    name: str
    split: str
    classes: Sequence[str]
    kind: str
    reasons: Sequence[str]


def make_gallery(title: str, items: Sequence[GalleryItem]) -> str:
    """Make a page that contains its images and needs no network.

    Args:
        title: title of the page.
        items: the images. Their texts may come from anyone: they are shown, never interpreted.

    Returns:
        The HTML.
    """
    splits = sorted({item.split for item in items})
    kinds = sorted({item.kind for item in items})
    classes = sorted({name for item in items for name in item.classes})
    entries = []
    for item in items:
        entries.append(
            {
                "split": item.split,
                "kind": item.kind,
                "classes": list(item.classes),
                "text": " ".join((item.name, *item.classes, *item.reasons)),
            }
        )
    data = json.dumps(entries).replace("<", "\\u003c")
    controls = "".join(
        (
            _select("split", "all splits", splits),
            _select("kind", "all kinds", kinds),
            _select("class", "all classes", classes),
            '<input id="text" placeholder="search"> <span id="shown"></span>',
        )
    )
    figures = "\n".join(map(_figure, items))
    shown_title = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{shown_title}</title>'
        f"<style>{_STYLE}</style></head>\n<body><header><h1>{shown_title}</h1>{controls}</header>\n"
        f'<main>\n{figures}\n</main>\n<script type="application/json" id="items">{data}</script>'
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _select(name: str, first: str, values: Sequence[str]) -> str:
    options = [f'<option value="">{first}</option>']
    for value in values:
        options.append(f"<option>{html.escape(value)}</option>")
    return f'<select id="{name}">{"".join(options)}</select>'


def _figure(item: GalleryItem) -> str:
    content = encode_jpeg(item.image, quality=JPEG_QUALITY).numpy().tobytes()
    source = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    lines = [html.escape(item.name), html.escape(f"{item.split}: {', '.join(item.classes)}")]
    for reason in item.reasons:
        lines.append(f"<b>{html.escape(reason)}</b>")
    caption = "<br>".join(lines)
    return (
        f'<figure class="{html.escape(item.kind)}"><img src="{source}" alt="" loading="lazy">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
