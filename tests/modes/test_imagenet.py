"""The recipes for ImageNet, on its layouts; what they train is used without this project."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from tests.builders import Outcome
from tests.data.formats.test_imagenet import IDS, VAL_LABELS, pack, stem, write_devkit, write_list
from tests.data.shards.samples import photograph

Command = Callable[..., Outcome]

NAMES = ["tench", "goldfish", "tiger cat"]

WORDS = (
    *("trainer=cpu", "trainer.max_epochs=1", "data.batch_size=4", "data.num_workers=0"),
    *("data.spec.image_size=[64,64]", "logger=none", "callbacks.image_logger=null"),
    "data.spec.class_names=[tench,goldfish,tiger cat]",
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes of ImageNet, with a flat validation folder."""
    monkeypatch.setenv("VISION_LAB_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "imagenet"
    for label, name in enumerate(IDS):
        (root / "train" / name).mkdir(parents=True)
        for number in range(4):
            file = root / "train" / name / f"{name}_{number}.JPEG"
            file.write_bytes(photograph(10 * label + number, (80, 100)))
    (root / "val").mkdir()
    for number in range(len(VAL_LABELS)):
        (root / "val" / f"{stem(number)}.JPEG").write_bytes(photograph(100 + number, (90, 70)))
    return root


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file as torchvision publishes them, with 1,000 classes."""
    torch.manual_seed(0)
    path = tmp_path / "squeezenet1_1-local.pth"
    torch.save(torchvision.models.squeezenet1_1().state_dict(), path)
    return path


def predict_alone(weights: Path, image: Path) -> list[float]:
    """Predict probabilities as a script does that knows nothing of this project."""
    network = torchvision.models.squeezenet1_1(num_classes=3)
    network.load_state_dict(torch.load(weights))
    network.eval()
    to_input = v2.Compose(
        [
            *(v2.PILToTensor(), v2.Resize(73, antialias=True), v2.CenterCrop(64)),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    with torch.inference_mode():
        logits = network(to_input(Image.open(image).convert("RGB"))[None])
    return logits.softmax(dim=1)[0].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["article", "imagenet"])
def test_recipes_train_on_the_layouts_and_their_weights_predict_elsewhere(
    command: Command, tmp_path: Path, root: Path, weights: Path, experiment: str
):
    images = tmp_path / "images"
    shutil.copytree(root / "val", images)
    write_list(root)
    if experiment == "imagenet":
        (root / "val.txt").unlink()
        write_devkit(root)
        pack(root)
    words = (f"experiment={experiment}", "data=imagenet", f"data.root={root}", *WORDS)
    words = (*words, "model=squeezenet1_1", f"model.weights={weights}", "name=run")
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    assert "imagenet: 11 train, 5 val, 1 test; 3 classes" in outcome.out
    run = tmp_path / "outputs" / "run"
    predicted = command("mode=predict", f"run={run}", f"source={images}", "trainer=cpu")
    assert predicted.code == 0, predicted.err
    with (run / "predict" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    for row in rows:
        alone = predict_alone(run / "model.pth", images / Path(row["path"]).name)
        found = {row[f"class{end}"]: float(row[f"confidence{end}"]) for end in ("", "_2", "_3")}
        assert [found[name] for name in NAMES] == pytest.approx(alone, abs=1e-4)
