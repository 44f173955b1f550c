"""``mode=check data=...``: inspect a dataset and report invalid files, file by file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from vision_lab import build
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core import console
from vision_lab.core.arguments import Range
from vision_lab.core.batch import BoxTargets
from vision_lab.core.errors import DataError, UnreadableFile
from vision_lab.core.files import format_path, reject_link, write_file, write_json
from vision_lab.core.spec import DataSpec
from vision_lab.data.inspection import (
    DatasetInspection,
    SampleReport,
    inspect_samples,
    inspection_report,
)
from vision_lab.modes import reports
from vision_lab.viz import images
from vision_lab.viz.gallery import GalleryItem, make_gallery
from vision_lab.viz.images import MAX_DRAWN

MAX_LISTED = 10
"""Maximum number of files of each kind to print; the report lists all of them."""

MAX_CLASSES_LISTED = 50

NUM_THUMBNAILS = 200
"""Number of images on the page, those with problems and suspicious ones first."""

DUPLICATES = {
    "duplicates_across_splits": "images in more than one split",
    "conflicting_duplicates": "duplicate images with different labels",
}
"""Duplicates that have to be fixed, and what they are called."""

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
        folder: output folder: ``report.json``, ``report.html`` and ``contact_sheet.png``.
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
    config = config.updated(
        {
            "data.on_error": "skip",
            "data.cache": None,
            "augment.train": [],
            "augment.eval": [],
        }
    )
    spec = build.spec(config)
    data = build.data(config, spec)
    data.prepare_data()
    data.setup()
    inspections = data.inspections(small_object_pixels=small_object_pixels)
    total = sum(map(len, inspections))
    reading = inspect_samples(inspections, num_workers=data.effective_num_workers)
    samples = list(console.track(reading, f"reading {total:,} samples", total=total))
    report = {
        "data": config.choices.get("data"),
        "root": config["data"].get("root"),
        "target_type": spec.target_type,
        **inspection_report(
            samples, data.annotation_issues, spec, changed=data.find_changed_files()
        ),
    }
    write_json(folder, "report.json", report)
    files = _write_images(folder, samples, report, inspections, spec, num_drawn=num_drawn)
    _print_report(report)
    console.print_line(f"written to {format_path(folder)}: {', '.join(['report.json', *files])}")
    _print_conclusion(report, format_path(folder / "report.json"))


def _print_conclusion(report: Mapping[str, Any], listing: str) -> None:
    """Print what was found in total.

    Raises:
        DataError: if anything is invalid.
    """
    num_problems, num_suspicions = report["num_problems"], report["num_suspicions"]
    suspicious = f"{num_suspicions} suspicious" if num_suspicions else ""
    if num_problems:
        rest = f", and {suspicious}" if suspicious else ""
        raise DataError(f"{num_problems} problems: all are listed in {listing}{rest}")
    rest = f", but {suspicious}: see {listing}" if suspicious else ""
    console.print_line(f"no problems found{rest}")


def _write_images(
    folder: Path,
    samples: Sequence[SampleReport],
    report: Mapping[str, Any],
    inspections: Sequence[DatasetInspection],
    spec: DataSpec,
    *,
    num_drawn: int,
) -> list[str]:
    """Write a contact sheet and a page of thumbnails, and return their names."""
    drawn = _draw_samples(_select_samples(samples, report, count=num_drawn), inspections, spec)
    if not drawn:
        return []
    sheet = images.grid([image for _, image in drawn])
    if spec.target_type in ("masks", "boxes"):
        first_color = 1 if spec.target_type == "boxes" else 0
        sheet = images.with_legend(sheet, spec.class_names, first_color=first_color)
    images.write_png(folder, "contact_sheet.png", sheet)
    chosen = _select_samples(samples, report, count=max(num_drawn, NUM_THUMBNAILS))
    thumbnails = _draw_samples(chosen, inspections, spec, named=False)
    reasons = _collect_reasons(report)
    items = [_gallery_item(sample, image, reasons, spec) for sample, image in thumbnails]
    page = make_gallery(f"data={report['data']}: {len(items)} of {len(samples)} images", items)
    write_file(folder, "report.html", page)
    return ["report.html", "contact_sheet.png"]


def _collect_reasons(report: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Return the kind and the text of what was found, by path."""
    reasons: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for issue in report["annotation_issues"]:
        reasons[issue["path"]].append(("problem", issue["problem"]))
    for key, title in DUPLICATES.items():
        for group in report[key]:
            for sample in group:
                reasons[sample["path"]].append(("problem", f"{title}: {_format_group(group)}"))
    for entry in report["suspicious_samples"]:
        reasons[entry["path"]].append(("suspicious", entry["reason"]))
    return reasons


def _gallery_item(
    sample: SampleReport,
    image: Tensor,
    reasons: Mapping[str, Sequence[tuple[str, str]]],
    spec: DataSpec,
) -> GalleryItem:
    found = reasons.get(sample.name, ())
    kinds = [kind for kind, _ in found]
    return GalleryItem(
        image=image,
        name=sample.name,
        split=sample.split,
        classes=[spec.class_names[label] for label in sorted(sample.counts or {})],
        kind=min(kinds, default="plain"),  # a problem before a suspicion
        reasons=[text for _, text in found],
    )


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
    for key, title in {
        **DUPLICATES,
        "duplicates_within_split": "duplicate images within a split",
    }.items():
        _print_list(title, [_format_group(group) for group in report[key]])
    samples = [f"{entry['path']}: {entry['reason']}" for entry in report["suspicious_samples"]]
    _print_list("suspicious", [*report["suspicious_splits"], *samples])


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
    suspects = set(_collect_reasons(report))
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


def _draw_samples(
    samples: Sequence[SampleReport],
    inspections: Sequence[DatasetInspection],
    spec: DataSpec,
    *,
    named: bool = True,
) -> list[tuple[SampleReport, Tensor]]:
    """Draw samples with their annotations and, if wanted, their names."""
    datasets = {inspection.split: inspection.dataset for inspection in inspections}
    drawn = []
    for report in samples:
        item = datasets[report.split][0, report.index]
        if not isinstance(item, UnreadableFile):
            image, target, sample = item
            height, width = sample.content_size or image.shape[-2:]
            image = image[:, :height, :width]
            name = Path(report.name).name if named else ""
            drawn.append((report, _draw_annotations(image, target, name, spec)))
    return drawn


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
