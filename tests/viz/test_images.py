"""Grids, captions, masks and boxes as images."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from vision_lab.viz import images
from vision_lab.viz.figures import bar_chart, confusion_matrix, line_chart
from vision_lab.viz.images import (
    COLORS,
    FONT_SIZE,
    GAP,
    LARGE_THUMBNAIL_SIZE,
    PALETTE,
    THUMBNAIL_SIZE,
    colorize_mask,
    draw_boxes,
    draw_caption,
    draw_mask_errors,
    encode_palette_png,
    grid,
    overlay_mask,
    side_by_side,
    with_legend,
)


def test_a_caption_is_below_its_image_in_its_color():
    white = torch.ones(3, 20, 40)
    plain = draw_caption(white * 0, "")
    assert plain.shape == (3, THUMBNAIL_SIZE + 2 * (FONT_SIZE + 3) + 4, THUMBNAIL_SIZE)
    assert plain.dtype == torch.uint8
    assert plain[:, THUMBNAIL_SIZE // 2, THUMBNAIL_SIZE // 2].tolist() == [0, 0, 0]
    assert plain[:, 2, 2].tolist() == [255, 255, 255]  # a wide image is centered on paper
    assert (plain[:, THUMBNAIL_SIZE:] == 255).all()
    for color in ("green", "red"):
        below = draw_caption(white, "coat 0.93, is shirt", color=color)[:, THUMBNAIL_SIZE:]
        ink = torch.tensor(COLORS[color], dtype=torch.uint8)[:, None, None]
        assert (below == ink).all(dim=0).any()


def test_float_uint8_and_gray_images_are_drawn_alike():
    gray = torch.full((1, 8, 8), 128, dtype=torch.uint8)
    drawn = draw_caption(gray, "x")
    assert torch.equal(drawn, draw_caption(gray.expand(3, -1, -1), "x"))
    assert torch.equal(drawn, draw_caption(torch.full((1, 8, 8), 128 / 255), "x"))
    assert drawn[:, 10, 10].tolist() == [128, 128, 128]
    assert draw_caption(torch.zeros(5, 8, 8), "five channels").shape == drawn.shape


def test_a_grid_is_filled_row_by_row():
    images = [torch.full((3, 4, 6), value, dtype=torch.uint8) for value in range(5)]
    sheet = grid(images, columns=3, gap=2)
    assert sheet.shape == (3, 2 * 6 + 2, 3 * 8 + 2)
    assert sheet[0, 2, 2::8].tolist() == [0, 1, 2]
    assert sheet[0, 8, 2::8].tolist()[:2] == [3, 4]
    assert sheet[0, 0, 0] == 255


def test_the_confusion_matrix_is_dark_at_large_counts():
    image = confusion_matrix(torch.diag(torch.tensor([5, 7, 9])), ["a", "b", "c"])
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    dark = (image.float().mean(dim=0) < 80).float().mean()
    assert 0.1 < dark < 0.4
    assert (
        confusion_matrix(torch.eye(40, dtype=torch.int64), [str(k) for k in range(40)]).shape[0]
        == 3
    )


def test_images_side_by_side():
    drawn = side_by_side([torch.zeros(3, 10, 10), torch.ones(1, 10, 5)], "two")
    assert drawn.shape == (3, THUMBNAIL_SIZE + 2 * (FONT_SIZE + 3) + 4, 2 * THUMBNAIL_SIZE + GAP)
    assert drawn[:, 5, THUMBNAIL_SIZE - 5].tolist() == [0, 0, 0]
    assert drawn[:, 5, THUMBNAIL_SIZE + 1].tolist() == [255, 255, 255]


def test_the_palette_is_pascal_vocs():
    assert PALETTE[:6] == (
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (0, 0, 128),
        (128, 0, 128),
    )
    assert PALETTE[20] == (0, 64, 128)
    assert PALETTE[255] == (224, 224, 192)
    assert len(set(PALETTE)) == 256


def test_a_mask_is_overlaid_on_an_image():
    image = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    mask = torch.zeros(4, 4, dtype=torch.uint8)
    mask[:, 2:] = 1
    laid = overlay_mask(image, mask)
    assert laid[:, 0, 0].tolist() == [100, 100, 100]
    assert laid[:, 0, 3].tolist() == [114, 50, 50]
    assert colorize_mask(mask)[:, 0, 3].tolist() == [128, 0, 0]
    assert overlay_mask(image, torch.zeros(7, 9, dtype=torch.uint8)).shape == (3, 7, 9)
    assert overlay_mask(image, torch.zeros(1, 1, dtype=torch.uint8)).flatten().tolist() == [100] * 3


def test_errors_are_red_and_ignored_pixels_white():
    image = torch.full((1, 1, 3), 90, dtype=torch.uint8)
    drawn = draw_mask_errors(image, torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 255]]))
    faint, red, white = drawn[:, 0].T.tolist()
    assert faint == pytest.approx([30] * 3, abs=1)
    assert (red, white) == (list(COLORS["red"]), [255, 255, 255])


def test_a_legend_wraps_into_lines():
    sheet = torch.zeros(3, 50, 400, dtype=torch.uint8)
    few, many = (
        with_legend(sheet, ["sky", "sea"]),
        with_legend(sheet, [f"class {k}" for k in range(21)]),
    )
    assert few.shape[-1] == many.shape[-1] == 400  # never too narrow to read
    assert (few[:, :50, :400] == 0).all()
    assert few.shape[1] < many.shape[1]
    assert with_legend(sheet, [f"class {k}" for k in range(200)]).shape[1] < 150


def test_a_mask_is_read_from_a_file():
    mask = torch.tensor([[0, 1], [254, 255]], dtype=torch.uint8)
    with Image.open(io.BytesIO(encode_palette_png(mask, ["a", "b"]))) as image:
        assert image.mode == "P"
        assert np.asarray(image).tolist() == mask.tolist()
        assert json.loads(image.text["classes"]) == ["a", "b"]
        assert image.getpalette()[3 * 254 :] == [*PALETTE[254], *PALETTE[255]]


def test_bars_and_shares():
    image = bar_chart({"sky": 1.0, "sea": 0.5}, "IoU")
    assert image.dtype == torch.uint8
    blue = (image[2].int() - image[0].int()) > 50
    widths = blue.sum(dim=1)[blue.any(dim=1)]
    assert widths.max() / widths.min() == pytest.approx(2, rel=0.05)
    counts = torch.tensor([[10**9, 0], [10**8, 10**8]])
    assert not torch.equal(
        confusion_matrix(counts, ["a", "b"], unit="pixels"), confusion_matrix(counts, ["a", "b"])
    )


def test_boxes_have_the_colors_and_names_of_their_classes():
    image = torch.full((3, 480, 640), 255, dtype=torch.uint8)
    drawn = draw_boxes(
        image, torch.tensor([[100.0, 80.0, 300.0, 200.0]]), torch.tensor([1]), ["cat 0.90"]
    )
    assert drawn.shape == (3, 480, 640)
    color = list(PALETTE[2])
    for row, column in ((80, 250), (150, 100), (199, 200), (150, 299)):  # the four sides
        assert drawn[:, row, column].tolist() == color
    assert drawn[:, 140, 200].tolist() == [255, 255, 255]  # inside
    assert drawn[:, 72, 104].tolist() != [255, 255, 255]  # the name stands above
    assert (drawn[:, 300:] == 255).all()


def test_small_images_are_enlarged_with_their_boxes():
    image = torch.zeros(1, 24, 48)
    drawn = draw_boxes(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), [])
    assert drawn.shape == (3, LARGE_THUMBNAIL_SIZE // 2, LARGE_THUMBNAIL_SIZE)
    assert (drawn == 0).all()
    large = draw_boxes(
        torch.zeros(3, 480, 960),
        torch.tensor([[0.0, 0.0, 960.0, 480.0]]),
        torch.tensor([0]),
        [""],
        side=120,
    )
    assert large.shape == (3, 60, 120)
    assert large[:, 59, 60].tolist() == list(PALETTE[1])  # the box went along
    at_the_top = draw_boxes(
        image, torch.tensor([[0.0, 0.0, 48.0, 24.0]]), torch.tensor([0]), ["a long name"]
    )
    assert at_the_top.shape == drawn.shape  # the name lies inside, where there is no room above


def test_precision_recall_curves():
    image = line_chart(
        {"cat": ([0, 0.5, 1], [1.0, 0.5, 0.0]), "dog": ([0, 0.5, 1], [0.0, 0.0, 0.0])},
        x="recall",
        y="precision",
    )
    assert image.shape == (3, 450, 600)
    found = (image == torch.tensor(PALETTE[1], dtype=torch.uint8)[:, None, None]).all(dim=0)
    assert found.sum() > 200
    assert line_chart({}, x="recall", y="precision").shape == (3, 450, 600)


def test_texts_of_boxes_do_not_cover_each_other():
    """Forty boxes at one place: a few texts around it, one of each class at least."""
    boxes = torch.tensor([[100.0, 100, 160, 160]]).repeat(40, 1) + torch.arange(40)[:, None] / 4
    placed = []
    original = images._draw_box_text

    def record(*arguments, **options):
        rectangle = original(*arguments, **options)
        placed.append(rectangle)
        return rectangle

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_draw_box_text", record)
        labels = torch.arange(40) % 2
        drawn = draw_boxes(torch.zeros(3, 400, 400), boxes, labels, ["car 0.90"] * 40)
    assert drawn.shape == (3, 400, 400)
    shown = [rectangle for rectangle in placed if rectangle]
    assert 2 <= len(shown) <= 6
    overlaps = [images._overlap(a, b) for i, a in enumerate(shown) for b in shown[:i]]
    assert not any(overlaps)
