"""The report of ``task=generate``: samples, interpolations, and the nearest real images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from vision_lab.metrics.generative import GENERATIVE_METRICS
from vision_lab.tasks.reports.base import Report
from vision_lab.viz.images import grid, side_by_side, tile_images

GRID_COLUMNS = 8
"""Images in each row of a grid."""


class GenerationReport(Report):
    """Shows generated images, (N, C, H, W) uint8."""

    def draw_samples(
        self,
        samples: Tensor,
        labels: Tensor | None,
    ) -> Tensor:
        """Draw generated images in a grid, with classes in columns."""
        columns = GRID_COLUMNS
        if labels is not None and self.spec.num_classes <= 2 * GRID_COLUMNS:
            columns = self.spec.num_classes
        return tile_images(samples, columns=columns)

    def figures(
        self,
        split: str,
        results: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Draw interpolations, nearest neighbors and real images, after the test."""
        if "interpolations" not in results:
            return {}
        interpolations = results["interpolations"]
        return {
            "interpolation": tile_images(
                interpolations.flatten(0, 1), columns=interpolations.shape[1]
            ),
            "neighbors": self._draw_neighbors(
                results["neighbors"], num_candidates=int(results["num_candidates"])
            ),
            "real": tile_images(results["real_images"], columns=GRID_COLUMNS),
        }

    def charts(
        self,
        monitor: str,
        *,
        added: Sequence[str] = (),
    ) -> dict[str, list[str]]:
        """Return losses, scores, and each metric of samples and of real images."""
        charts = {
            "losses": ["train/generator_loss", "train/discriminator_loss"],
            "scores": ["train/real_score", "train/fake_score"],
        }
        for name in (*GENERATIVE_METRICS, *added):
            charts[name] = [f"val/{name}", f"val/real_{name}"]
        return charts

    def _draw_neighbors(
        self,
        neighbors: Tensor,
        *,
        num_candidates: int,
    ) -> Tensor:
        """Draw each sample beside its nearest real images.

        Args:
            neighbors: (n, 1 + k, C, H, W): samples, each followed by real images.
            num_candidates: number of real images that were compared.
        """
        caption = f"generated, and the nearest of {num_candidates:,} real images"
        rows = [side_by_side(list(images), caption) for images in neighbors]
        return grid(rows, columns=2, gap=16)
