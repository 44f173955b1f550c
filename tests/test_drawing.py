"""Pictures of pictures: sizes, places, colours."""

import torch

from vision_lab.drawing import COLOURS, FONT_SIZE, SIDE, captioned, confusion, grid


def test_a_caption_lies_under_its_picture_in_its_colour():
    white = torch.ones(3, 20, 40)
    plain = captioned(white * 0, "")
    assert plain.shape == (3, SIDE + 2 * (FONT_SIZE + 3) + 4, SIDE)
    assert plain.dtype == torch.uint8
    assert plain[:, SIDE // 2, SIDE // 2].tolist() == [0, 0, 0]
    assert plain[:, 2, 2].tolist() == [255, 255, 255]  # a wide picture is centred on paper
    assert (plain[:, SIDE:] == 255).all()
    for colour in ("green", "red"):
        below = captioned(white, "said coat 0.93, is shirt", colour=colour)[:, SIDE:]
        ink = torch.tensor(COLOURS[colour], dtype=torch.uint8)[:, None, None]
        assert (below == ink).all(dim=0).any()


def test_floats_bytes_and_grey_are_drawn_alike():
    grey = torch.full((1, 8, 8), 128, dtype=torch.uint8)
    drawn = captioned(grey, "x")
    assert torch.equal(drawn, captioned(grey.expand(3, -1, -1), "x"))
    assert torch.equal(drawn, captioned(torch.full((1, 8, 8), 128 / 255), "x"))
    assert drawn[:, 10, 10].tolist() == [128, 128, 128]
    assert captioned(torch.zeros(5, 8, 8), "five channels").shape == drawn.shape


def test_a_grid_is_filled_row_by_row():
    pictures = [torch.full((3, 4, 6), value, dtype=torch.uint8) for value in range(5)]
    sheet = grid(pictures, columns=3, gap=2)
    assert sheet.shape == (3, 2 * 6 + 2, 3 * 8 + 2)
    assert sheet[0, 2, 2::8].tolist() == [0, 1, 2]
    assert sheet[0, 8, 2::8].tolist()[:2] == [3, 4]
    assert sheet[0, 0, 0] == 255


def test_confusion_is_dark_where_the_counts_are():
    picture = confusion(torch.diag(torch.tensor([5, 7, 9])), ["a", "b", "c"])
    assert picture.dtype == torch.uint8
    assert picture.shape[0] == 3
    dark = (picture.float().mean(dim=0) < 80).float().mean()
    assert 0.1 < dark < 0.4
    assert confusion(torch.eye(40, dtype=torch.int64), [str(k) for k in range(40)]).shape[0] == 3
