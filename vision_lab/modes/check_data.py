"""``mode=check data=...``: what is in a data set, and what is wrong with it, file by file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.progress import track
from torch import Tensor
from torchvision.io import encode_png

from vision_lab import build
from vision_lab.config.resolution import Config
from vision_lab.config.validation import check_config
from vision_lab.core import console
from vision_lab.core.arguments import Range
from vision_lab.core.batch import BoxTargets
from vision_lab.core.errors import DataError, UnreadableFile
from vision_lab.core.files import format_path, reject_link, write_file
from vision_lab.core.spec import DataSpec
from vision_lab.data.inspection import SampleReport, inspect_samples, inspection_report
from vision_lab.data.transformed_dataset import TransformedDataset
from vision_lab.modes import reports
from vision_lab.viz import images
from vision_lab.viz.images import MAX_DRAWN

MAX_LISTED = 10
"""Files of each kind that are named on the screen; all are in the report."""


def check(
    config: Config,
    folder: Path,
    *,
    drawn: Annotated[int, Range(ge=0, le=MAX_DRAWN)],
    tiny: Annotated[int, Range(ge=0)],
) -> None:
    """Read every sample of every split.

    Args:
        config: of which only the data counts.
        folder: gets ``report.json`` and ``contact_sheet.png``.
        drawn: how many pictures the contact sheet shows.
        tiny: an object is tiny whose shorter side has fewer pixels when its picture is fitted to the network's.

    Raises:
        DataError: where anything is broken, after all has been told.
    """
    reject_link(folder)
    console.silence_libraries()
    check_config(config, ["data"])
    # All that is wrong is to be told at once.
    config = config.updated({"data.on_error": "skip", "augment.train": [], "augment.eval": []})
    spec = build.spec(config)
    data = build.data(config, spec)
    data.prepare_data()
    data.setup()
    examinations = data.inspections(tiny=tiny)
    total = sum(map(len, examinations))
    reading = inspect_samples(examinations, workers=data.effective_num_workers)
    found = list(track(reading, f"reading {total:,} samples", total=total, transient=True))
    told = inspection_report(found, data.annotation_issues, spec)
    told = {
        "data": config.choices.get("data"),
        "root": config["data"].get("root"),
        "target": spec.target_type,
        **told,
    }
    write_file(folder, "report.json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    pictures = _contact_sheet_images(
        found, {each.split: each.examples for each in examinations}, told, spec, count=drawn
    )
    if pictures:
        sheet = images.grid(pictures)
        sheet = (
            images.with_legend(sheet, spec.class_names) if spec.target_type == "masks" else sheet
        )
        write_file(folder, "contact_sheet.png", encode_png(sheet).numpy().tobytes())
    _show(told)
    console.print_line(
        f"written to {format_path(folder)}: report.json"
        + (", contact_sheet.png" if pictures else "")
    )
    if told["broken"]:
        raise DataError(
            f"{told['broken']} broken: all are listed in {format_path(folder / 'report.json')}"
        )
    console.print_line("nothing is broken")


def _show(told: Mapping[str, Any]) -> None:
    reports.print_table(
        "splits",
        [
            {
                "split": name,
                "pictures": each["pictures"],
                "smallest": _size(each["sizes"]["smallest"]),
                "median": _size(each["sizes"]["median"]),
                "largest": _size(each["sizes"]["largest"]),
                "no labels": len(each["without"]),
                "tiny": sum(each["tiny"].values()),
            }
            for name, each in told["splits"].items()
        ],
    )
    unit = (
        "pixels"
        if told["target"] == "masks"
        else "objects"
        if told["target"] == "boxes"
        else "pictures"
    )
    names = next(iter(told["splits"].values()))["classes"]
    counted = [
        {
            "class": name,
            **{
                f"{split} {unit}": each["classes"][name]["count"]
                for split, each in told["splits"].items()
            },
        }
        for name in names
    ]
    reports.print_table("classes", counted, most=50)
    _list("cannot be read", [f"{each['path']}: {each['reason']}" for each in told["unreadable"]])
    broken = [f"{each['path']}: {each['what']}" for each in told["broken_annotations"]]
    _list("with broken annotations", broken)
    _list("in more than one split", [_names(group) for group in told["duplicates_across_splits"]])
    contradicting = [_names(group) for group in told["contradicting_duplicates"]]
    _list("there twice with other labels", contradicting)
    _list(
        "more than once in a split", [_names(group) for group in told["duplicates_within_a_split"]]
    )


def _list(what: str, entries: Sequence[str]) -> None:
    if entries:
        more = f"\n  and {len(entries) - MAX_LISTED} more" if len(entries) > MAX_LISTED else ""
        console.print_line(f"{len(entries)} {what}:\n  " + "\n  ".join(entries[:MAX_LISTED]) + more)


def _names(group: Sequence[Mapping[str, str]]) -> str:
    return " = ".join(f"{each['path']} ({each['split']})" for each in group)


def _size(size: Sequence[int] | None) -> str:
    return f"{size[1]}x{size[0]}" if size else ""


def _contact_sheet_images(
    found: Sequence[SampleReport],
    splits: Mapping[str, TransformedDataset],
    told: Mapping[str, Any],
    spec: DataSpec,
    *,
    count: int,
) -> list[Tensor]:
    """Pictures with their annotations: those with something broken first, then some of all, evenly spaced."""
    suspects = {each["path"] for each in told["broken_annotations"]}
    for kind in ("duplicates_across_splits", "contradicting_duplicates"):
        suspects |= {each["path"] for group in told[kind] for each in group}
    readable = [each for each in found if not each.problem]
    first = [each for each in readable if each.name in suspects][:count]
    others = [each for each in readable if each.name not in suspects]
    step = max(1, len(others) // max(1, count - len(first)))
    pictures = []
    for each in [*first, *others[::step]][:count]:
        example = splits[each.split][0, each.index]
        if not isinstance(example, UnreadableFile):
            image, target, sample = example
            rows, columns = sample.content_size or image.shape[-2:]
            pictures.append(
                _draw_annotations(image[:, :rows, :columns], target, Path(each.name).name, spec)
            )
    return pictures


def _draw_annotations(image: Tensor, target: Any, name: str, spec: DataSpec) -> Tensor:
    names = spec.class_names
    if isinstance(target, BoxTargets):
        texts = [names[label] for label in target.labels.tolist()]
        boxed = images.draw_boxes(
            image, target.boxes, target.labels, texts, side=images.LARGE_THUMBNAIL_SIZE
        )
        return images.side_by_side([boxed], name, side=images.LARGE_THUMBNAIL_SIZE)
    if spec.target_type == "masks":
        return images.side_by_side([image, images.colorize_mask(target)], name)
    label = int(torch.as_tensor(target))
    return images.draw_caption(image, f"{names[label] if label >= 0 else 'no label'}  {name}")
