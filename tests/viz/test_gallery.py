"""A page of thumbnails: what it shows, and that texts in it are never markup."""

import html.parser
import json
import re

import torch

from vision_lab.viz.gallery import GalleryItem, make_gallery

EVIL = "</script><img src=x onerror=alert(1)>"


class Reader(html.parser.HTMLParser):
    """Lists the tags of a page, and the sources of its images."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name == "src"]


def items() -> list[GalleryItem]:
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    return [
        GalleryItem(image, f"{EVIL}.png", "train", [EVIL], "problem", [EVIL]),
        GalleryItem(image, "b.png", "val", ["beech", "ash"], "plain", []),
    ]


def test_texts_are_shown_and_never_markup():
    page = make_gallery(EVIL, items())
    reader = Reader()
    reader.feed(page)
    assert reader.tags.count("img") == reader.tags.count("figure") == 2
    assert reader.tags.count("script") == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in reader.sources)
    assert "</script><img" not in page


def test_the_filters_list_what_there_is():
    page = make_gallery("data", items())
    data = re.search(r'id="items">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    entries = json.loads(data[1])
    assert [entry["kind"] for entry in entries] == ["problem", "plain"]
    assert entries[1] == {
        "split": "val",
        "kind": "plain",
        "classes": ["beech", "ash"],
        "text": "b.png beech ash",
    }
    assert "<option>ash</option><option>beech</option>" in page
