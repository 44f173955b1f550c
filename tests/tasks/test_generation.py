"""Metrics and drawings of samples."""

from pathlib import Path

import pytest
import torch

from tests.tasks.tiny_gan import Pair, Shades, data, generate, shade, trainer
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import DataError, UnreadableFileError
from vision_lab.metrics.generative import fid
from vision_lab.tasks.generation import GenerationTask
from vision_lab.tasks.reports.generation import GenerationReport


def figures(task: GenerationTask) -> dict[str, torch.Tensor]:
    return GenerationReport(task.spec).figures("test", task.results["test"])


def test_noise_is_a_function_of_seed_and_index():
    task = generate()
    few, many = task.sample_latents(range(3)), task.sample_latents(range(10))
    assert torch.equal(few.latents, many.latents[:3])
    assert torch.equal(task.sample_latents([7]).latents, many.latents[7:8])
    assert not torch.equal(generate(seed=1).sample_latents(range(3)).latents, few.latents)
    assert many.latents.std() == pytest.approx(1, abs=0.4)
    assert few.labels is None
    labels = generate(Pair(conditional=True)).sample_latents(range(5)).labels
    assert labels is not None
    assert labels.tolist() == [0, 1, 0, 1, 0]


def test_samples_do_not_depend_on_their_batch():
    task = generate()
    together = task.generate(task.sample_latents(range(20)))
    assert together.dtype == torch.uint8
    assert torch.equal(task.generate(task.sample_latents([11])), together[11:12])


def test_samples_and_real_images_are_compared_with_the_split(tmp_path: Path):
    task = generate()
    trainer(tmp_path).fit(task, datamodule=data())
    values = task.results["val"]
    real = shade(Shades(64).tensors[0])
    made = shade(task.generate(task.sample_latents(range(200))))
    assert values["fid"] == fid(real, made).float()
    train = shade(Shades().tensors[0])[[place * 256 // 200 for place in range(200)]]
    assert values["real_fid"] == fid(real, train).float()
    assert values["real_fid"] < 0.05 < values["fid"]
    assert "noise_fid" not in values
    assert sorted(values) == [
        "diversity",
        "fid",
        "kid",
        "precision",
        "real_fid",
        "real_kid",
        "real_precision",
        "real_recall",
        "recall",
    ]


def test_the_test_evaluates_noise_and_draws_figures(tmp_path: Path):
    task = generate(Pair(conditional=True))
    trainer(tmp_path).test(task, datamodule=data(), verbose=False)
    assert task.results["test"]["noise_fid"] > 0
    drawn = figures(task)
    assert sorted(drawn) == ["interpolation", "neighbors", "real"]
    for figure in drawn.values():
        assert figure.dtype == torch.uint8
        assert figure.shape[0] == 3
    assert task.metric_settings() == {
        "feature_extractor": "shade",
        "num_samples": 200,
        "real": 64,
        "training": 200,
    }


def test_samples_have_the_class_frequencies_of_the_split(tmp_path: Path):
    """Three quarters of the split are dark, and as many samples."""

    class Uneven(Shades):
        def __init__(self) -> None:
            super().__init__(64)
            light = (self.targets == 1).nonzero().flatten()[::2]
            self.targets[light] = 0
            self.tensors = (self.tensors[0], self.targets)

    task, seen = generate(Pair(conditional=True)), []
    made = task.generate
    task.generate = lambda noise: (seen.append(noise.labels), made(noise))[1]  # type: ignore[method-assign]
    trainer(tmp_path).validate(task, datamodule=data(val=Uneven), verbose=False)
    labels = torch.cat(seen)
    assert len(labels) == 200
    assert (labels == 0).float().mean().item() == pytest.approx(0.75)


def test_the_nearest_neighbor_of_a_training_image_is_itself(tmp_path: Path):
    """A generator that copies training images is revealed."""
    train = Shades().tensors[0]
    task = generate()
    task.generate = lambda noise: train[: len(noise.latents)]  # type: ignore[method-assign]
    trainer(tmp_path).test(task, datamodule=data(), verbose=False)
    drawn = figures(task)["neighbors"]
    # A row of a sample and its three nearest_neighbors: in the first, of 144 pixels each with 4 between, the first two agree.
    assert torch.equal(drawn[:, 16:160, 16:160], drawn[:, 16:160, 164:308])


def test_nearest_neighbors_skip_unreadable_files(tmp_path: Path):
    """An unreadable training image does not shift the indices of others."""

    class Bad(Shades):
        def __getitem__(self, index):
            if index == 5:
                raise UnreadableFileError("5.png", "torn")
            return super().__getitem__(index)

    train = Shades().tensors[0]
    task = generate()
    task.generate = lambda noise: train[100 : 100 + len(noise.latents)]  # type: ignore[method-assign]
    trainer(tmp_path).test(task, datamodule=data(train=Bad, on_error="skip"), verbose=False)
    drawn = figures(task)["neighbors"]
    assert torch.equal(drawn[:, 16:160, 16:160], drawn[:, 16:160, 164:308])


def test_training_images_are_evaluated_once(tmp_path: Path):
    compared = []

    def count(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        compared.append(len(fake))
        return torch.zeros(())

    task = generate(metrics={"count": count})
    trainer(tmp_path, max_epochs=3).fit(task, datamodule=data())
    assert len(compared) == 3 + 1
    assert task.results["val"]["count"] == task.results["val"]["real_count"] == 0


def test_a_metric_of_a_name_in_use_is_refused():
    with pytest.raises(ArgumentError, match=r"metrics=\[fid\]: type other names"):
        generate(metrics={"fid": fid})


def test_samples_are_drawn_with_classes_in_columns():
    conditional, unconditional = generate(Pair(conditional=True)), generate()
    for task, shape in (
        (conditional, (3, 4 * 74 + 2, 2 * 74 + 2)),
        (unconditional, (3, 74 + 2, 8 * 74 + 2)),
    ):
        assert GenerationReport(task.spec).draw_samples(*task.sample_images()).shape == shape


def test_interpolations_end_at_their_samples(tmp_path: Path):
    task = generate()
    trainer(tmp_path).test(task, datamodule=data(), verbose=False)
    strip = figures(task)["interpolation"]
    ends = task.generate(task.sample_latents([0, 1]))
    assert strip[0, 10, 10] == ends[0, 0, 0, 0]
    assert strip[0, 10, -10] == ends[1, 0, 0, 0]


def test_too_few_images_for_metrics(tmp_path: Path):
    """Reported before training, or after it if fewer images were used."""
    with pytest.raises(
        DataError, match="too few images for the metrics, 3 in test: each split requires 4"
    ):
        trainer(tmp_path).fit(generate(), datamodule=data(test=lambda: Shades(3)))
    with pytest.raises(
        DataError, match="only 2 images of val were read, but the metrics require 4"
    ):
        trainer(tmp_path, limit_val_batches=1).fit(generate(), datamodule=data(batch_size=2))


def test_a_split_without_samples(tmp_path: Path):
    task = generate()
    task._collect_features = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(DataError, match="only 0 images of test were read"):
        trainer(tmp_path).test(task, datamodule=data(), verbose=False)
