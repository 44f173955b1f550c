"""Reconstruction: losses, metrics, anomalies, samples, drawings."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tasks.tiny_gan import SHADES, Shades, data, shade, trainer
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.batch import Batch, Sample
from vision_lab.losses.reconstruction import MeanSquaredError, kl_divergence
from vision_lab.metrics.generative import fid
from vision_lab.models.architectures.autoencoder import autoencoder
from vision_lab.models.architectures.conv_encoder import ConvEncoder
from vision_lab.tasks.reconstruction import ReconstructionTask
from vision_lab.tasks.reports.reconstruction import ReconstructionReport
from vision_lab.training.lr_schedules import Constant


def reconstruct(*, variational: bool = False, **changes: Any) -> ReconstructionTask:
    torch.manual_seed(0)
    encoder = partial(ConvEncoder, image_size=SHADES.image_size, base_channels=4)
    network = autoencoder(
        SHADES, encoder=encoder, latent_dim=4, base_channels=4, variational=variational
    )
    settings: dict[str, Any] = {
        "loss": MeanSquaredError(),
        "feature_extractor": shade,
        "num_samples": 50,
        "num_preview": 8,
        "network": network,
        "spec": SHADES,
        "optimizer": partial(torch.optim.Adam, lr=1e-2),
        "schedule": Constant(),
        "monitor": "val/psnr",
        "monitor_mode": "max",
        "seed": 0,
        "report": ReconstructionReport,
    }
    return ReconstructionTask(**settings | changes)


def make_batch(count: int = 6) -> Batch:
    images, labels = Shades(count).tensors
    samples = [Sample(index, None, (4, 4), (4, 4)) for index in range(count)]
    return Batch(images, labels, samples)


def test_the_loss_is_the_evidence_lower_bound_by_pixel():
    task, batch = reconstruct(variational=True, beta=3.0).eval(), make_batch()
    outputs = task(batch.images)
    losses = task.losses(outputs, batch)
    squared = (outputs.logits.sigmoid() - batch.images / 255).square().mean()
    divergence = kl_divergence(outputs.mean, outputs.log_variance) / 16
    assert losses["reconstruction"].item() == pytest.approx(squared.item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx((squared + 3 * divergence).item(), rel=1e-5)
    plain = reconstruct()
    assert set(plain.losses(plain(batch.images), batch)) == {"loss"}


def test_metrics_are_those_of_the_whole_split(tmp_path: Path):
    task = reconstruct()
    trainer(tmp_path, max_epochs=2).fit(task, datamodule=data())
    images = Shades(64).tensors[0]
    reconstructed = task.eval().decode(task(images))
    error = ((reconstructed.float() - images.float()) / 255).square().mean()
    values = task.results["val"]
    assert values["psnr"].item() == pytest.approx((-10 * error.log10()).item(), rel=1e-4)
    assert sorted(values) == ["loss", "psnr", "ssim"]
    assert values["psnr"] > 15  # of images that are one gray level each


def test_samples_of_a_variational_autoencoder_are_compared_with_real_images(tmp_path: Path):
    task = reconstruct(variational=True)
    trainer(tmp_path).fit(task, datamodule=data())
    values = task.results["val"]
    made = shade(task.generate(task.sample_latents(range(50))))
    assert values["fid"] == fid(shade(Shades(64).tensors[0]), made).float()
    assert task.metric_settings() == {"feature_extractor": "shade", "num_samples": 50}
    assert task.metric_names("val") == {"loss", "psnr", "ssim", "fid"}
    generated = task.sample_images()
    assert generated is not None
    assert generated[0].shape == (8, 1, 4, 4)
    assert reconstruct().sample_images() is None


def test_without_features_there_is_no_distance(tmp_path: Path):
    task = reconstruct(variational=True, feature_extractor=None)
    trainer(tmp_path).fit(task, datamodule=data())
    assert "fid" not in task.results["val"]


def test_the_network_does_not_learn_from_anomalies(tmp_path: Path):
    task, seen = reconstruct(anomalies=["light"]), []
    record = task.losses
    task.losses = lambda outputs, batch: (seen.append(batch.targets), record(outputs, batch))[1]  # type: ignore[method-assign]
    training = trainer(tmp_path, max_epochs=4, limit_val_batches=0)
    training.fit(task, datamodule=data())
    assert torch.cat(seen).unique().tolist() == [0]
    training = trainer(tmp_path)
    training.test(task, datamodule=data(), verbose=False)
    values = task.results["test"]
    assert values["auroc"] > 0.9
    images, labels = Shades(64).tensors
    reconstructed = task.decode(task(images)).float()
    scores = ((reconstructed - images.float()) / 255).square().mean(dim=(1, 2, 3))
    wins = (scores[labels == 1][:, None] > scores[labels == 0][None]).double().mean()
    assert values["auroc"].item() == pytest.approx(wins.item(), abs=0.02)
    assert task.uses_class_labels


def test_the_auroc_of_one_kind_of_images_is_undefined(tmp_path: Path):
    task = reconstruct(anomalies=["light"])
    only_dark = partial(Shades, 1)
    trainer(tmp_path).test(task, datamodule=data(test=only_dark), verbose=False)
    assert task.results["test"]["auroc"].isnan()


def test_unknown_anomalies_are_refused():
    with pytest.raises(ArgumentError, match=r"anomalies=\[grey\]: type some of its classes, dark"):
        reconstruct(anomalies=["grey"])


def test_the_report_shows_errors_where_they_are():
    report = ReconstructionReport(SHADES)
    batch = make_batch(2)
    predictions = batch.images.clone()
    predictions[0, :, 1, 2] = 255 - predictions[0, :, 1, 2]
    rows = report.table_rows(batch, predictions)
    assert rows[0]["anomaly_score"] > rows[1]["anomaly_score"] == 0
    results = report.to_results(batch, predictions)
    assert results[0].errors.argmax().item() == 1 * 4 + 2
    assert results[0].anomaly_score == rows[0]["anomaly_score"]
    assert len(report.draw(batch, predictions, with_targets=False)) == 2
    report.collect("val", batch, predictions)
    drawn = report.figures("val", {"interpolations": torch.zeros(2, 3, 1, 4, 4).byte()})
    assert sorted(drawn) == ["interpolation", "worst"]
    assert report.figures("val", {}) == {}


def test_interpolations_begin_and_end_with_reconstructions(tmp_path: Path):
    task = reconstruct()
    trainer(tmp_path).test(task, datamodule=data(), verbose=False)
    shown = task.results["test"]["interpolations"]
    images = torch.stack(task.require_data().load_images("train", range(8), max_samples=8))
    reconstructed = task.eval().decode(task(images))
    assert shown.shape[0] == 4
    assert (shown[:, 0].int() - reconstructed[::2].int()).abs().max() <= 1
    assert (shown[:, -1].int() - reconstructed[1::2].int()).abs().max() <= 1
