"""The report of a comparison: one HTML file that opens anywhere, without a network.

All texts come from run folders, maybe of others, so Jinja escapes them; images are decoded and
encoded again.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup
from PIL import Image, UnidentifiedImageError
from plotly.offline import get_plotlyjs

from vision_lab.compare.charts import MAX_GROUPS, make_charts
from vision_lab.compare.comparison import Comparison
from vision_lab.compare.difference import find_differing
from vision_lab.compare.runs import FinishedRun
from vision_lab.compare.samples import SampleVotes, find_disagreements
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.sample_files import THUMBNAIL_COLUMNS, THUMBNAILS_FILENAME
from vision_lab.core.text import display_text
from vision_lab.run_folders.folder import Run

TEMPLATE = Path(__file__).with_name("report.html.jinja")

IMAGE_NAMES = ("test_predictions", "val_predictions", "samples")
"""Images of runs, of which the first that exists is shown: all runs draw the same samples."""

MAX_IMAGES = 4
"""Number of groups of which images are shown."""

MAX_KEYS = 40
"""Maximum number of keys that are shown of the difference between two configs."""

MAX_PIXELS = 20_000_000
"""Larger images are not shown."""

MAX_IMAGE_SIDE = 900
"""Longer side of a shown image in pixels."""

CHART_SETTINGS = {"responsive": True, "displayModeBar": False}


def make_report(
    comparison: Comparison,
    *,
    rows: Sequence[Mapping[str, str]],
    warnings: Sequence[str],
    label_errors: tuple[Sequence[SampleVotes], int],
    command: str,
) -> str:
    """Return the report.

    Args:
        comparison: the comparison.
        rows: its table, of ``make_rows``.
        warnings: what is wrong besides the warnings of the comparison.
        label_errors: what ``find_label_errors`` returns.
        command: the command that has made it.
    """
    _read_image.cache_clear()  # files may have changed since an earlier report
    charts = {}
    for heading, figure in make_charts(comparison).items():
        charts[heading] = figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            config=CHART_SETTINGS,
            default_width="100%",
        )
    environment = Environment(
        autoescape=True,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        comparison=comparison,
        rows=rows,
        charts=charts,
        images=_list_images(comparison),
        warnings=[*comparison.warnings, *warnings],
        differences=_list_config_differences(comparison),
        label_errors=_show_samples(*label_errors),
        disagreements=_show_disagreements(comparison),
        runs=[_describe_run(run) for item in comparison.groups for run in item.group.runs],
        command=command,
        time=f"{datetime.now():%Y-%m-%d %H:%M}",
        plotly=get_plotlyjs(),
        max_groups=MAX_GROUPS,
    )


def _finalize(value: Any) -> Any:
    """Show control characters of a text; what is marked as safe is our own markup."""
    return value if isinstance(value, Markup) else display_text(value)


def _describe_run(run: FinishedRun) -> dict[str, Any]:
    """Return how a run can be repeated: its command, commit and data."""
    try:
        environment = run.run.environment
    except ConfigurationError:
        environment = {}
    words = environment.get("command")
    data = []
    for split, fingerprint in run.data.items():
        if split != "root":
            data.append(f"{split} {_format_fingerprint(fingerprint)}")
    return {
        "run": str(run.run),
        "score": f"{run.metrics[run.monitor]:.4f}",
        "command": _format_command(words, run.run),
        "commit": str(environment.get("commit") or "-")[:12],
        "data": ", ".join(data),
    }


def _format_command(words: Any, run: Run) -> str:
    """Return what trains a run: its overrides, since its command may be that of a sweep."""
    try:
        overrides = []
        for word in run.overrides:
            if not word.startswith(("name=", "search.")):
                overrides.append(word)
    except ConfigurationError:
        overrides = []
    if not overrides and isinstance(words, list):
        return " ".join(map(str, words))
    return " ".join(["python -m vision_lab", *overrides])


def _format_fingerprint(fingerprint: Any) -> str:
    if not isinstance(fingerprint, dict):
        return str(fingerprint)
    return " ".join(str(value) for value in fingerprint.values())


def _list_config_differences(
    comparison: Comparison,
) -> dict[str, tuple[int, list[tuple[str, str, str]]]]:
    """Return for each group the number of keys that differ from the reference, and the first ones.

    Each key has the value of the reference and that of the group.
    """
    reference = comparison.reference.runs[0]
    found = {}
    for item in comparison.groups[:MAX_GROUPS]:
        if item.difference is None:
            continue
        run, rows = item.group.runs[0], []
        differing = find_differing(reference.choices, run.choices)
        differing |= find_differing(reference.config, run.config)
        for key, (old, new) in list(differing.items())[:MAX_KEYS]:
            rows.append((key, str(old), str(new)))
        if len(differing) > MAX_KEYS:
            rows.append((f"and {len(differing) - MAX_KEYS} more", "", ""))
        found[item.group.name] = (len(differing), rows)
    return found


def _show_samples(votes: Sequence[SampleVotes], num_runs: int) -> list[dict[str, str | None]]:
    """Return what most runs predict for each sample, with its image."""
    shown: list[dict[str, str | None]] = []
    for vote in votes:
        label, count = vote.majority
        shown.append(
            {
                "text": f"predicted {label} by {count} of {num_runs}, labeled {vote.target}",
                "sample": f"{vote.sample} ({vote.split})",
                "source": _cut_thumbnail(vote),
            }
        )
    return shown


def _show_disagreements(comparison: Comparison) -> dict[str, list[dict[str, str | None]]]:
    shown = {}
    for name, (votes, num_runs) in find_disagreements(comparison).items():
        shown[name] = _show_samples(votes, num_runs)
    return shown


def _cut_thumbnail(vote: SampleVotes) -> str | None:
    """Return the image of a sample as a URI, cut out of those of a run; None if no run has it."""
    for run, rank in vote.images:
        sheet = _read_image(run.folder / THUMBNAILS_FILENAME)
        if sheet is None:
            continue
        side = sheet.width // THUMBNAIL_COLUMNS
        left, top = rank % THUMBNAIL_COLUMNS * side, rank // THUMBNAIL_COLUMNS * side
        if side and top + side <= sheet.height:
            return _to_uri(sheet.crop((left, top, left + side, top + side)))
    return None


def _list_images(comparison: Comparison) -> list[dict[str, str]]:
    """Return images of the first run of each of the best groups, on the same samples."""
    for name in IMAGE_NAMES:
        images = []
        for item in comparison.groups[:MAX_IMAGES]:
            run = item.group.runs[0].run
            encoded = _encode_image(run.folder / "images" / f"{name}.png")
            if encoded:
                images.append({"name": item.group.name, "run": str(run), "source": encoded})
        if images:
            return images
    return []


def _encode_image(file: Path) -> str | None:
    """Return an image as a URI, made smaller; None if it is absent or no image."""
    image = _read_image(file)
    if image is None:
        return None
    image = image.copy()
    image.thumbnail((MAX_IMAGE_SIDE, MAX_IMAGE_SIDE))
    return _to_uri(image)


@lru_cache(maxsize=16)  # many samples are cut out of one image
def _read_image(file: Path) -> Image.Image | None:
    """Read an image; None if it is absent, no image, or too large.

    Only two decoders are allowed: Pillow would pass PostScript to another program.
    """
    if not file.is_file() or file.is_symlink():
        return None
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as opened:
            is_too_large = opened.width * opened.height > MAX_PIXELS
            return None if is_too_large else opened.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return None


def _to_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
