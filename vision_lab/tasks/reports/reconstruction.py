"""The report of ``task=reconstruct``: reconstructions, their errors, interpolations, samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor
from torchvision.io import encode_png
from torchvision.transforms.v2 import functional as F

from vision_lab.core.batch import Batch
from vision_lab.core.spec import DataSpec
from vision_lab.metrics.reconstruction import anomaly_scores, error_maps
from vision_lab.tasks.reports.base import LazyFile, LazyImage, Report, Row
from vision_lab.tasks.reports.predictions import Prediction, ReconstructionPrediction
from vision_lab.tasks.reports.worst_samples import WorstSamples
from vision_lab.viz.images import overlay_heat_map, side_by_side, tile_images

NUM_WORST_DRAWN = 16
"""Number of the images with the largest errors to draw."""

MAX_ERROR = 0.5
"""Difference from the image, as a fraction of the range of pixels, that is drawn in red."""

GRID_COLUMNS = 8
"""Images in each row of a grid of samples."""

PNG_COMPRESSION_LEVEL = 2


class ReconstructionReport(Report):
    """Shows reconstructed images, (N, C, H, W) uint8."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.worst: dict[str, WorstSamples[Tensor]] = {}

    def start(self, split: str) -> None:
        self.worst.pop(split, None)

    def collect(self, split: str, batch: Batch, predictions: Tensor) -> None:
        """Draw the images with the largest errors."""
        if split == "predict":
            return
        worst = self.worst.setdefault(split, WorstSamples(NUM_WORST_DRAWN))
        scores = anomaly_scores(predictions, batch.images).tolist()
        rows = zip(batch.images, predictions, batch.samples, scores, strict=True)
        for image, prediction, sample, score in rows:
            worst.offer(score, sample.index, partial(_draw_reconstruction, image, prediction))

    def draw(self, batch: Batch, predictions: Tensor, *, with_targets: bool) -> list[Tensor]:
        """Draw each image, its reconstruction and the error of each pixel."""
        pairs = zip(batch.images, predictions, strict=True)
        return [_draw_reconstruction(image, prediction) for image, prediction in pairs]

    def figures(self, split: str, results: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draw the images with the largest errors and, after the test, interpolations."""
        figures = {}
        worst = self.worst.pop(split, WorstSamples(0)).sorted_samples()
        if worst:
            figures["worst"] = self.combine(worst)
        if "interpolations" in results:
            shown = results["interpolations"]
            figures["interpolation"] = tile_images(shown.flatten(0, 1), columns=shown.shape[1])
        return figures

    def draw_samples(self, samples: Tensor, labels: Tensor | None) -> Tensor:
        """Draw images made from random codes in a grid."""
        return tile_images(samples, columns=GRID_COLUMNS)

    def charts(self, monitor: str, *, added: Sequence[str] = ()) -> dict[str, list[str]]:
        """Return the loss with its terms, and the curves of the metrics."""
        charts = super().charts(monitor, added=added)
        charts["loss"] += ["train/reconstruction", "train/kl"]
        for name in ("psnr", "ssim", "fid", "auroc"):
            charts.setdefault(name, [f"val/{name}"])
        return charts

    def to_results(self, batch: Batch, predictions: Tensor) -> list[Prediction]:
        drawers = self.make_drawers(batch, predictions)
        scores = anomaly_scores(predictions, batch.images).tolist()
        maps = error_maps(predictions, batch.images)
        results: list[Prediction] = []
        rows = zip(batch.samples, predictions, drawers, scores, maps, strict=True)
        for sample, output, draw, score, errors in rows:
            results.append(ReconstructionPrediction(sample.path, output, draw, score, errors))
        return results

    def table_rows(self, batch: Batch, predictions: Tensor) -> list[Row]:
        """Return the path of each image and its anomaly score."""
        rows = super().table_rows(batch, predictions)
        scores = anomaly_scores(predictions, batch.images).tolist()
        for row, score in zip(rows, scores, strict=True):
            row["anomaly_score"] = score
        return rows

    def render_predictions(
        self,
        batch: Batch,
        predictions: Tensor,
        *,
        names: Sequence[str],
        images: Sequence[LazyImage],
    ) -> list[LazyFile]:
        """Return ``reconstructions/<name>.png``, and ``heat_maps/<name>.png`` on the original."""
        files: list[LazyFile] = []
        maps = _heat(predictions, batch.images).cpu()
        for image, prediction, heat, name in zip(
            images, predictions.cpu(), maps, names, strict=True
        ):
            reconstruction = partial(_encode_image, prediction)
            files += [
                (f"reconstructions/{name}.png", reconstruction),
                (f"heat_maps/{name}.png", partial(_render_heat_map, image, heat)),
            ]
        return files


def _heat(predictions: Tensor, images: Tensor) -> Tensor:
    """Return the root of the squared error of each pixel, (N, H, W), where 1 is ``MAX_ERROR``."""
    return (error_maps(predictions, images).sqrt() / MAX_ERROR).clamp(max=1)


def _draw_reconstruction(image: Tensor, reconstructed: Tensor) -> Tensor:
    error = anomaly_scores(reconstructed[None], image[None]).item()
    heat = _heat(reconstructed[None], image[None])[0]
    panels = [image, reconstructed, overlay_heat_map(image, heat)]
    return side_by_side(panels, f"image, reconstruction, errors.  Score {error:.4f}")


def _render_heat_map(image: LazyImage, heat: Tensor) -> bytes:
    """Draw a heat map on the original image, and encode it as PNG."""
    original = image()
    resized = F.resize(heat[None], list(original.shape[-2:]), antialias=True)[0].clamp(0, 1)
    return _encode_image(overlay_heat_map(original, resized))


def _encode_image(image: Tensor) -> bytes:
    """Encode an image (C, H, W) uint8 as PNG, in gray for one channel."""
    if image.shape[0] not in (1, 3):
        image = image[:1]
    encoded = encode_png(image.contiguous(), compression_level=PNG_COMPRESSION_LEVEL)
    return encoded.numpy().tobytes()
