"""The report of segmentation: masks as files, drawings, metrics by class."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.builders import mask_batch, mask_example
from vision_lab.core.files import write_file
from vision_lab.core.spec import IGNORE_INDEX, DataSpec
from vision_lab.metrics.segmentation import SegmentationMetrics
from vision_lab.tasks.reports.segmentation import SegmentationReport
from vision_lab.viz.images import PALETTE


def test_rows_and_files(mask_spec: DataSpec, tmp_path: Path):
    report = SegmentationReport(mask_spec)
    given = mask_batch(torch.full((1, 8, 8), IGNORE_INDEX), ["photos/a.jpg"])
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    mask[:, 6:] = 2
    assert report.table_rows(given, [mask]) == [
        {"path": "photos/a.jpg", "fraction_sky": 0.75, "fraction_sea": 0.0, "fraction_sand": 0.25}
    ]
    # On the file's own image, which may be larger than the mask.
    for name, render in report.render_predictions(
        given,
        [mask],
        names=["below/a"],
        images=[lambda: torch.zeros(3, 16, 16, dtype=torch.uint8)],
    ):
        write_file(tmp_path, name, render())
    with Image.open(tmp_path / "masks" / "below" / "a.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), mask.numpy())
        assert json.loads(image.text["classes"]) == ["sky", "sea", "sand"]
        assert tuple(image.getpalette()[6:9]) == PALETTE[2]
    with Image.open(tmp_path / "overlays" / "below" / "a.jpg") as image:
        assert image.size == (8, 8)


def test_images_of_any_format(mask_spec: DataSpec):
    report = SegmentationReport(mask_spec)
    _, given = mask_example()
    drawn = report.draw(given, given.targets.clamp(max=2), with_targets=True)
    alone = report.draw(
        mask_batch(torch.full((1, 8, 8), IGNORE_INDEX)),
        [torch.zeros(8, 8, dtype=torch.uint8)],
        with_targets=False,
    )
    assert [image.shape[-1] for image in (*drawn, *alone)] == [4 * 148 - 4] * 2 + [2 * 148 - 4]
    sheet = report.combine(drawn)
    assert sheet.shape[-1] == 2 * (4 * 148 - 4 + 6) + 6
    legend = torch.tensor(PALETTE[2], dtype=torch.uint8)[:, None, None]
    assert (sheet[:, -30:] == legend).all(dim=0).any()


def test_the_worst_images_and_the_table(mask_spec: DataSpec):
    report = SegmentationReport(mask_spec)
    _, given = mask_example()
    right = torch.where(given.targets == IGNORE_INDEX, 0, given.targets)
    report.collect("val", given, torch.stack([right[0], (right[1] + 1) % 3]))
    measure = SegmentationMetrics(3)
    measure.update(right, given.targets)
    results = measure.compute()
    assert {name: found["iou"] for name, found in report.per_class(results).items()} == {
        "sky": 1,
        "sea": 1,
        "sand": 1,
    }
    assert (
        sum(found["pixels"] for found in report.per_class(results).values())
        == (given.targets != IGNORE_INDEX).sum()
    )
    assert [(-index, 1 - badness) for badness, index, _ in sorted(report.worst["val"]._heap)] == [
        (0, 1.0),
        (1, 0.0),
    ]
    figures = report.figures("val", results)
    assert set(figures) == {"confusion", "iou", "worst"}
    assert all(image.dtype == torch.uint8 and image.shape[0] == 3 for image in figures.values())
    report.collect("val", given, right)
    report.start("val")
    assert "worst" not in report.figures("val", results)


def test_absent_classes_are_not_in_the_table(mask_spec: DataSpec):
    report = SegmentationReport(mask_spec)
    measure = SegmentationMetrics(3)
    measure.update(torch.zeros(1, 2, 2, dtype=torch.uint8), torch.zeros(1, 2, 2, dtype=torch.uint8))
    results = measure.compute()
    assert list(report.per_class(results)) == ["sky"]
