"""``mode=check data=...``: inspect a dataset and report invalid files, file by file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.progress import track
from torch import Tensor

from vision_lab import build
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core import console
from vision_lab.core.arguments import Range
from vision_lab.core.batch import BoxTargets
from vision_lab.core.errors import DataError, UnreadableFile
from vision_lab.core.files import format_path, reject_link, write_json
from vision_lab.core.spec import DataSpec
from vision_lab.data.inspection import (
    DatasetInspection,
    SampleReport,
    inspect_samples,
    inspection_report,
)
from vision_lab.modes import reports
from vision_lab.viz import images
from vision_lab.viz.images import MAX_DRAWN

MAX_LISTED = 10
"""Maximum number of files of each kind to print; the report lists all of them."""

MAX_CLASSES_LISTED = 50

UNITS = {"masks": "pixels", "boxes": "objects"}
"""What is counted for each class; images for the other target types."""


def check(
    config: Config,
    folder: Path,
    *,
    num_drawn: Annotated[int, Range(ge=0, le=MAX_DRAWN)],
    small_object_pixels: Annotated[int, Range(ge=0)],
) -> None:
    """Read every sample of every split, and report what is in them and which are invalid.

    Args:
        config: the config, of which only the data is used.
        folder: output folder: ``report.json`` and ``contact_sheet.png``.
        num_drawn: number of images on the contact sheet.
        small_object_pixels: an object counts as small if its shorter side has fewer pixels, in an
            image resized to ``data.spec.image_size``.

    Raises:
        ConfigurationError: if the config is invalid.
        DataError: if anything is invalid, after the whole report is written.
    """
    reject_link(folder)
    console.silence_libraries()
    check_config(config, ["data"])
    # Collect all errors instead of stopping at the first.
    config = config.updated({"data.on_error": "skip", "augment.train": [], "augment.eval": []})
    spec = build.spec(config)
    data = build.data(config, spec)
    data.prepare_data()
    data.setup()
    inspections = data.inspections(small_object_pixels=small_object_pixels)
    total = sum(map(len, inspections))
    reading = inspect_samples(inspections, num_workers=data.effective_num_workers)
    samples = list(track(reading, f"reading {total:,} samples", total=total, transient=True))
    report = {
        "data": config.choices.get("data"),
        "root": config["data"].get("root"),
        "target_type": spec.target_type,
        **inspection_report(samples, data.annotation_issues, spec),
    }
    write_json(folder, "report.json", report)
    shown = _select_samples(samples, report, count=num_drawn)
    sheet = _draw_contact_sheet(shown, inspections, spec)
    if sheet is not None:
        images.write_png(folder, "contact_sheet.png", sheet)
    _print_report(report)
    sheet_name = ", contact_sheet.png" if sheet is not None else ""
    console.print_line(f"written to {format_path(folder)}: report.json{sheet_name}")
    num_problems = report["num_problems"]
    if num_problems:
        listing = format_path(folder / "report.json")
        raise DataError(f"{num_problems} problems: all are listed in {listing}")
    console.print_line("no problems found")


def _print_report(report: Mapping[str, Any]) -> None:
    splits = report["splits"]
    reports.print_table("splits", [_split_row(name, splits[name]) for name in splits])
    unit = UNITS.get(report["target_type"], "images")
    rows = []
    for class_name in next(iter(splits.values()))["classes"]:
        row = {"class": class_name}
        for split, summary in splits.items():
            row[f"{split} {unit}"] = summary["classes"][class_name]["count"]
        rows.append(row)
    reports.print_table("classes", rows, max_rows=MAX_CLASSES_LISTED)
    unreadable = [f"{file['path']}: {file['reason']}" for file in report["unreadable"]]
    issues = [f"{issue['path']}: {issue['problem']}" for issue in report["annotation_issues"]]
    _print_list("unreadable files", unreadable)
    _print_list("invalid annotations", issues)
    for key, title in (
        ("duplicates_across_splits", "images in more than one split"),
        ("conflicting_duplicates", "duplicate images with different labels"),
        ("duplicates_within_split", "duplicate images within a split"),
    ):
        _print_list(title, [_format_group(group) for group in report[key]])


def _split_row(name: str, summary: Mapping[str, Any]) -> dict[str, str | float]:
    sizes = summary["sizes"]
    return {
        "split": name,
        "images": summary["num_images"],
        "smallest": _format_size(sizes["smallest"]),
        "median": _format_size(sizes["median"]),
        "largest": _format_size(sizes["largest"]),
        "unlabeled": len(summary["unlabeled"]),
        "small objects": sum(summary["small_objects"].values()),
    }


def _print_list(title: str, entries: Sequence[str]) -> None:
    if entries:
        lines = [f"{len(entries)} {title}:", *(f"  {entry}" for entry in entries[:MAX_LISTED])]
        if len(entries) > MAX_LISTED:
            lines.append(f"  and {len(entries) - MAX_LISTED} more")
        console.print_line("\n".join(lines))


def _format_group(group: Sequence[Mapping[str, str]]) -> str:
    return " = ".join(f"{sample['path']} ({sample['split']})" for sample in group)


def _format_size(size: Sequence[int] | None) -> str:
    if size:
        return f"{size[1]}x{size[0]}"
    return ""


def _select_samples(
    samples: Sequence[SampleReport], report: Mapping[str, Any], *, count: int
) -> list[SampleReport]:
    """Select samples for the contact sheet: those with problems first, then evenly spaced ones."""
    suspects = {issue["path"] for issue in report["annotation_issues"]}
    for key in ("duplicates_across_splits", "conflicting_duplicates"):
        for group in report[key]:
            suspects.update(sample["path"] for sample in group)
    first, others = [], []
    for sample in samples:
        if sample.problem:
            continue
        if sample.name in suspects:
            first.append(sample)
        else:
            others.append(sample)
    first = first[:count]
    step = max(1, len(others) // max(1, count - len(first)))
    return [*first, *others[::step]][:count]


def _draw_contact_sheet(
    samples: Sequence[SampleReport], inspections: Sequence[DatasetInspection], spec: DataSpec
) -> Tensor | None:
    """Draw samples with their annotations.

    Returns:
        The sheet, (3, H, W) uint8; None if there are no images.
    """
    datasets = {inspection.split: inspection.dataset for inspection in inspections}
    drawn = []
    for report in samples:
        item = datasets[report.split][0, report.index]
        if not isinstance(item, UnreadableFile):
            image, target, sample = item
            height, width = sample.content_size or image.shape[-2:]
            image = image[:, :height, :width]
            drawn.append(_draw_annotations(image, target, Path(report.name).name, spec))
    if not drawn:
        return None
    sheet = images.grid(drawn)
    if spec.target_type == "masks":
        return images.with_legend(sheet, spec.class_names)
    return sheet


def _draw_annotations(
    image: Tensor,
    target: Any,
    name: str,
    spec: DataSpec,
) -> Tensor:
    class_names = spec.class_names
    side = images.LARGE_THUMBNAIL_SIZE
    if isinstance(target, BoxTargets):
        texts = [class_names[label] for label in target.labels.tolist()]
        drawn = images.draw_boxes(image, target.boxes, target.labels, texts, side=side)
        return images.side_by_side([drawn], name, side=side)
    if spec.target_type == "masks":
        return images.side_by_side([image, images.colorize_mask(target)], name)
    label = int(torch.as_tensor(target))
    class_name = class_names[label] if label >= 0 else "no label"
    return images.draw_caption(image, f"{class_name}  {name}")
