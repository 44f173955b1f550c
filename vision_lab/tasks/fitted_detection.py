"""``task=detect`` with detectors that are fitted in rounds instead of by gradients."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from vision_lab.core.batch import Batch, BoxTargets
from vision_lab.core.protocols import FittedDetector
from vision_lab.tasks.detection import DetectionTask
from vision_lab.training.seeding import derive_seed

log = logging.getLogger(__name__)

STATE_KEY = "fit_state"
"""Key of a checkpoint under which the examples are stored that a detector has kept."""

MAX_HELD_OUT = 100
"""Maximum number of images by which scores are calibrated; they stay in memory for a round."""


class FittedDetectionTask(DetectionTask):
    """Object detection by a detector that learns without gradients.

    An epoch is a round: a pass over the training images, from which the detector collects examples,
    and its fit to them. There is neither a loss nor an optimizer. Training ends after the last
    round of the detector, or after ``trainer.max_epochs``.

    Some images are held out: by the detections in them the detector is calibrated after each fit.

    A checkpoint is complete between rounds, so that an interrupted round is repeated.

    Args:
        arguments: arguments of ``DetectionTask``; ``network`` is a ``FittedDetector``.
    """

    learns_by_gradients = False
    can_compile = False

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.automatic_optimization = False
        self._is_prepared = False
        self._held_out: list[tuple[Tensor, BoxTargets]] = []

    @property
    def detector(self) -> FittedDetector:
        """The detector."""
        return cast(FittedDetector, self.network)

    @property
    def step_is_complete(self) -> bool:
        return False

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return None

    def learning_rates(self) -> dict[str, float]:
        return {}

    def on_fit_start(self) -> None:
        """Train as many epochs as there are rounds, and show the detector all objects before."""
        super().on_fit_start()
        loop = self.trainer.fit_loop
        num_rounds, limit = self.detector.num_rounds, loop.max_epochs
        has_limit = limit is not None and limit >= 0  # -1: none
        loop.max_epochs = min(limit or 0, num_rounds) if has_limit else num_rounds
        if loop.max_epochs < num_rounds:
            log.warning(
                "trainer.max_epochs=%d ends training before the last of model.num_rounds=%d",
                loop.max_epochs,
                num_rounds,
            )
        if not self._is_prepared:
            self.detector.prepare(self._iterate_targets())

    def _iterate_targets(self) -> Any:
        for batch in self.require_data().eval_loader("train"):
            yield from batch.targets

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect examples from the images of a batch, and fit the detector after the last one."""
        for image, target, sample in zip(batch.images, batch.targets, batch.samples, strict=True):
            pixels, objects = image.cpu(), target.to(torch.device("cpu"))
            if self._is_held_out(sample.index):
                self._held_out.append((pixels, objects))
                continue
            generator = torch.Generator()
            generator.manual_seed(derive_seed(self.seed, self.current_epoch, sample.index))
            self.detector.collect(
                pixels, objects, round_index=self.current_epoch, generator=generator
            )
        if self.trainer.is_last_batch:
            self.results["train"] = self.detector.fit()
            self.detector.calibrate(self._held_out)
            self._held_out = []

    def _is_held_out(self, index: int) -> bool:
        """Return whether a training image is held out, which is the same in all rounds."""
        limit = MAX_HELD_OUT / len(self.require_data().splits["train"])
        fraction = min(self.detector.calibration_fraction, limit)
        return derive_seed(self.seed, index) < fraction * 2**63

    def on_train_epoch_end(self) -> None:
        self.log_dict({f"train/{name}": value for name, value in self.results["train"].items()})

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[STATE_KEY] = self.detector.fit_state()

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        super().on_load_checkpoint(dict(checkpoint))
        self.detector.load_fit_state(checkpoint[STATE_KEY])
        self._is_prepared = True
