"""Runs from Python: results, typed predictions, evaluation, tables."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vision_lab
from tests.builders import FAST
from vision_lab.core.arguments import ArgumentError
from vision_lab.core.errors import ConfigurationError, DataError
from vision_lab.tasks.reports.predictions import BoxPrediction, ClassPrediction, MaskPrediction

RunFolder = Callable[[str], str]


def photo(path: str, size: tuple[int, int] = (40, 30)) -> str:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Path(path).parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_results_of_a_run(run_folder: RunFolder):
    run = vision_lab.load(run_folder("classify"))
    assert repr(run) == "<TrainedRun outputs/classify, finished>"
    assert set(run.metrics) == {
        f"test/{name}" for name in ("accuracy", "calibration_error", "f1", "loss", "top5")
    }
    (row,) = run.history
    assert row["epoch"] == 0
    assert row["val/accuracy"] == run.score
    assert run.choices["model"] == "resnet20"
    assert run.config["model"]["network"]["depth"] == 8
    assert run.spec.num_classes == 10
    assert run.network(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert not run.network.training


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="there is no such folder"):
        vision_lab.load(tmp_path / "none")


def test_a_run_without_a_result(run_folder: RunFolder):
    folder = run_folder("classify")
    for name in ("result.json", "model.pth"):
        Path(folder, name).unlink()
    run = vision_lab.load(folder)
    with pytest.raises(ConfigurationError, match="outputs/classify has no result"):
        _ = run.metrics
    with pytest.raises(ConfigurationError, match=r"has no model\.pth"):
        run.predict(np.zeros((28, 28), dtype=np.uint8))


def test_classes_of_paths_arrays_images_and_tensors(run_folder: RunFolder):
    run = vision_lab.load(run_folder("classify"))
    path = photo("photos/a.png")
    photo("photos/b.png")
    single = run.predict(path)
    assert isinstance(single, ClassPrediction)
    assert single.path == path
    assert single.class_name == max(single.scores, key=single.scores.__getitem__)
    assert single.score == single.scores[single.class_name]
    assert math.isclose(sum(single.scores.values()), 1, rel_tol=1e-5)
    image = Image.open(path)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for other in (Path(path), image, array, tensor, tensor / 255, array.astype(np.float64) / 255):
        assert run.predict(other).scores == single.scores
    for many in ("photos", "photos/*.png", [path, image], np.stack([array] * 2)):
        predictions = run.predict(many)
        assert len(predictions) == 2
        for prediction in predictions:  # of a batch: equal but for the last digits
            assert prediction.scores == pytest.approx(single.scores, rel=1e-4)
    assert run.predict(path, tta="flip").scores == run.predict(array[:, ::-1], tta="flip").scores
    assert run.predict(path).scores == single.scores


def test_masks_have_the_size_of_their_images(run_folder: RunFolder):
    run = vision_lab.load(run_folder("segment"))
    prediction = run.predict(photo("a.png", (120, 80)))
    assert isinstance(prediction, MaskPrediction)
    assert prediction.mask.shape == (80, 120)
    assert math.isclose(sum(prediction.fractions.values()), 1)
    assert set(prediction.fractions) <= set(run.spec.class_names)
    prediction.save("drawn.png")
    assert Image.open("drawn.png").size == prediction.drawing.size
    assert prediction._repr_png_()[:4] == b"\x89PNG"
    assert run.predict("a.png", tiles=True).mask.shape == (80, 120)


def test_boxes_are_in_pixels_of_their_images(run_folder: RunFolder):
    run = vision_lab.load(run_folder("detect"))
    prediction = run.predict(photo("a.png", (300, 150)))
    assert isinstance(prediction, BoxPrediction)
    assert len(prediction) == len(prediction.objects) > 0
    scores = [found.score for found in prediction.objects]
    assert scores == sorted(scores, reverse=True)
    boxes = np.array([found.box for found in prediction.objects])
    assert boxes[:, [0, 2]].max() <= 300
    assert boxes[:, [1, 3]].max() <= 150
    assert boxes.max() > 64  # the size of the network's images
    with pytest.raises(ArgumentError, match="tta=flip: type null: this task cannot average"):
        run.predict("a.png", tta="flip")


def test_samples_are_reproducible(run_folder: RunFolder):
    run = vision_lab.load(run_folder("generate"))
    images = run.sample(3)
    assert images.shape == (3, 1, 32, 32)
    assert torch.equal(run.sample(2), images[:2])
    assert run.sample(2, labels=[4, 4]).shape == (2, 1, 32, 32)
    with pytest.raises(ConfigurationError, match=r"call sample\(\)"):
        run.predict(np.zeros((28, 28), dtype=np.uint8))
    with pytest.raises(ConfigurationError, match=r"call predict\(\)"):
        vision_lab.load(run_folder("classify")).sample(2)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "there are no images to predict"),
        (3, "images must be paths, PIL images, arrays or tensors, not int"),
        (
            np.full((8, 8), 255.0),
            r"images of floats must be in \[0, 1\], but these are from 255 to",
        ),
        ([np.zeros((2, 8, 8, 3), dtype=np.uint8)], "must contain single images, not batches"),
        ("none/*.png", r"^none/\*\.png: there is no such file or folder, and no match"),
        (["broken.png"], "broken.png cannot be read"),
    ],
)
def test_what_is_no_image_is_refused(run_folder: RunFolder, images: object, message: str):
    run = vision_lab.load(run_folder("classify"))
    Path("broken.png").write_bytes(b"no image")
    with pytest.raises((DataError, ConfigurationError), match=message):
        run.predict(images)


def test_evaluation_on_another_split(run_folder: RunFolder):
    run = vision_lab.load(run_folder("classify"))
    assert run.evaluate() == run.metrics
    values = run.evaluate("val")
    assert values["val/accuracy"] == run.score
    assert Path("outputs/classify/evaluate/val.json").is_file()


def test_a_table_of_runs(run_folder: RunFolder):
    run_folder("classify")
    run_folder("segment")
    Path("outputs/other").mkdir()
    found = vision_lab.runs("outputs/*")
    assert [run.folder.name for run in found] == ["classify", "segment"]
    first, second = found.rows
    assert first["run"] == "outputs/classify"
    assert (first["task"], second["task"]) == ("classify", "segment")
    assert first["val/accuracy"] == found[0].score
    assert "seed" not in first
    assert "trainer" not in first  # the same in both


def test_training_twice_and_resuming_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from vision_lab.cli.main import main

    monkeypatch.chdir(tmp_path)
    run = vision_lab.train(*FAST, "name=x")
    assert run.state == "finished"
    assert run.folder == Path("outputs/x")
    assert "already finished" not in capsys.readouterr().out
    assert vision_lab.train(*FAST, "name=x").metrics == run.metrics
    assert "already finished" in capsys.readouterr().out
    assert main([*FAST, "name=x"]) == 0
    assert "already finished" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="another config"):
        vision_lab.train(*FAST, "name=x", "seed=3")
