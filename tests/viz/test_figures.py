"""Charts as images."""

import torch

from vision_lab.viz.figures import bar_chart, confusion_matrix, line_chart


def colored(image: torch.Tensor) -> torch.Tensor:
    """Return (H, W) whether a pixel is colored, neither gray nor white."""
    return (image.amax(dim=0).int() - image.amin(dim=0).int()) > 60


def test_bars_are_as_long_as_their_values():
    image = bar_chart({"$\\frac{": 1.0, "b": 0.5, "c": 0.0}, "IoU")
    assert (image.dtype, image.shape[0]) == (torch.uint8, 3)
    rows = colored(image).sum(dim=1)
    longest, half = rows.max(), rows[rows > 0].min()
    assert abs(half / longest - 0.5) < 0.05


def test_a_chart_of_many_curves_has_no_legend():
    few = line_chart({"a": ([0, 0.5, 1], [1.0, 0.5, 0.0])}, x="recall", y="precision")
    many = line_chart({str(k): ([0, 1], [1.0, 0.0]) for k in range(100)}, x="recall", y="precision")
    assert few.shape == many.shape
    upper_right = (slice(0, few.shape[1] // 3), slice(few.shape[2] * 5 // 6, None))
    assert colored(few)[upper_right].any()
    assert not colored(many)[upper_right].any()


def test_a_confusion_matrix_is_dark_at_large_fractions():
    names = ["a", "b"]
    diagonal = confusion_matrix(torch.tensor([[9, 0], [0, 9]]), names)
    errors = confusion_matrix(torch.tensor([[0, 9], [9, 0]]), names, unit="pixels")
    height, width = diagonal.shape[1:]
    quarter = (slice(None), int(height * 0.25), int(width * 0.35))
    assert diagonal[quarter].float().mean() < errors[quarter].float().mean()


def test_a_confusion_matrix_of_many_classes_has_no_names():
    image = confusion_matrix(torch.eye(200, dtype=torch.int64), [f"class {k}" for k in range(200)])
    assert max(image.shape) <= 1400
