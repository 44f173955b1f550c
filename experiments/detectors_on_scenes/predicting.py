"""Measure images/s of trained detectors: OMP_NUM_THREADS=1 python predicting.py run ..."""

import statistics
import sys
import time
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from vision_lab.core.spec import DataSpec
from vision_lab.data.bundled.scenes import Scenes

ROUNDS = 15
BATCH = 8


def load_detector(run: Path) -> tuple[torch.nn.Module, DataSpec]:
    """Load the trained network of a run."""
    config = OmegaConf.load(run / "config_resolved.yaml")
    spec = DataSpec.from_config(OmegaConf.to_container(config.data.spec))
    backbone = instantiate(config.model, _convert_="all")(spec)
    for key in ("target_type", "weights", "torchvision_name"):
        config.head.pop(key, None)
    network = instantiate(config.head, _partial_=True, _convert_="all")(backbone, spec).eval()
    network.load_state_dict(torch.load(run / "model.pth", weights_only=True))
    return network, spec


def main(runs: list[Path]) -> None:
    """Time a batch of each detector in turn, so that all see the same load, and print medians."""
    detectors = {run.name: load_detector(run) for run in runs}
    times: dict[str, list[float]] = {name: [] for name in detectors}
    spec = next(iter(detectors.values()))[1]
    scenes = Scenes(
        split="test",
        num_images=BATCH,
        image_size=spec.image_size,
        label_set="grouped",
        target_type="boxes",
        seed=0,
    )
    images = torch.stack([scenes[k][0] for k in range(BATCH)]) / 255
    images = (images - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name, (network, _) in detectors.items():
                start = time.perf_counter()
                network.decode(network(images))
                times[name].append(time.perf_counter() - start)
    for name, seconds in times.items():
        print(f"{name:20} {BATCH / statistics.median(seconds[2:]):6.1f} images/s")


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
