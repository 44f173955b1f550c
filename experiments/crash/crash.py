"""Kill a run at random moments, repeat its command until it is finished, and compare the results.

python experiments/crash/crash.py [case ...] [--kills 20] [--seed 0]
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HERE = Path(__file__).parent

CASES = {
    # dropout, batch norm, augmentation, one-cycle schedule, accumulated gradients, EMA, early stopping
    "classify": "model=resnet20_dropout augment=pad_crop trainer.accumulate_grad_batches=2 "
    "data.batch_size=32 trainer.limit_train_batches=80 trainer.max_epochs=12",
    # checkpoints of 456 MB every 5 batches: half of the time is spent writing them
    "heavy": "model=alexnet data.spec.image_size=[64,64] optimizer=sgd optimizer.lr=0.01 "
    "data.batch_size=8 trainer.limit_train_batches=30 trainer.limit_val_batches=10 trainer.limit_test_batches=10 trainer.max_epochs=4",
    # the same with two processes
    "two": "model=resnet20_dropout augment=pad_crop trainer=ddp_cpu trainer.accumulate_grad_batches=2 "
    "data.batch_size=16 trainer.limit_train_batches=80 trainer.max_epochs=12",
    # masks, scale jitter, dropout in the head, an auxiliary head, class weights
    "segment": "task=segment head=deeplabv3 augment=scale_jitter data.spec.image_size=[64,64] "
    "data.num_images.train=160 data.num_images.val=32 data.num_images.test=32 trainer.max_epochs=8",
    # boxes, mosaic, losses that sample in training and in validation
    "detect": "task=detect head=faster_rcnn head.channels=32 augment=mosaic "
    "data.spec.image_size=[64,64] data.num_images.train=120 data.num_images.val=24 data.num_images.test=24 trainer.max_epochs=6",
    # two networks and optimizers, accumulated gradients, averaged weights, penalties, class labels
    "generate": "task=generate model.conditioning=projection model.spectral_norm=true loss=hinge "
    "task.n_critic=2 diffaugment=translation scheduler=cosine "
    "trainer.accumulate_grad_batches=2 callbacks.ema=null task.num_samples=200 trainer.limit_train_batches=80 trainer.max_epochs=8",
}
"""Overrides of each case, besides those in COMMON."""

CHILDREN = {"worker": "classify", "second": "two"}
"""Cases in which a child of the command is killed (a data loading worker or the second of two
processes) and the command must end with a message, and the case whose overrides they have."""

SECONDS_TO_END = 60.0
"""Time in which a command must end after one of its children was killed."""

COMMON = (
    *("--config-dir", str(HERE / "conf"), "callbacks=everything", "trainer=cpu"),
    "trainer.plugins.checkpoints._target_=phases.ReportingCheckpointIO",
)

WORKERS = (0, 2, 1)
"""Number of data loading workers of successive processes; it must not change the result."""


class Attempt:
    """A process that runs the command once.

    Args:
        name: name of the run.
        words: overrides of the case.
        number: number of the attempt, which determines the number of workers.
        folder: working directory, with outputs/.
    """

    def __init__(self, name: str, words: list[str], *, number: int, folder: Path) -> None:
        self.phase_file = folder / f"{name}.phase"
        self.phase_file.write_text("starting")
        code = os.pathsep.join([str(HERE), str(HERE.parents[1])])
        environment = os.environ | {"PYTHONPATH": code, "PHASE": str(self.phase_file)}
        command = [sys.executable, "-m", "vision_lab", *COMMON, *words, f"name={name}"]
        self.log = (folder / f"{name}.log").open("a")
        self.process = subprocess.Popen(
            [*command, f"data.num_workers={WORKERS[number % len(WORKERS)]}"],
            cwd=folder,
            env=environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    @property
    def phase(self) -> str:
        return self.phase_file.read_text().strip()

    def wait_for_training(self) -> None:
        while self.phase in ("starting", "reading a checkpoint") and self.process.poll() is None:
            time.sleep(0.01)

    def kill_after(self, seconds: float) -> str | None:
        """Kill the process and return its phase; None if it had ended before."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            return self.phase
        return None

    def kill_child_after(self, seconds: float, chance: random.Random) -> str | None:
        """Kill a child and return the phase; None if there was none or the command no longer needed it."""
        time.sleep(seconds)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = children.read_text().split() if self.process.poll() is None else []
        if not pids:
            return None
        phase = self.phase
        os.kill(int(chance.choice(pids)), signal.SIGKILL)
        try:
            code = self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit(f"it hangs after the death of a child: see {self.log.name}") from None
        if code == 0:
            return None
        last = Path(self.log.name).read_text().rstrip().splitlines()[-1]
        if code != 1 or "Traceback" in Path(self.log.name).read_text() or "was" not in last:
            raise SystemExit(
                f"after the death of a child it ended with code {code}: see {self.log.name}"
            )
        return phase


def run_with_kills(
    name: str,
    words: list[str],
    *,
    kills: int,
    uninterrupted_step: float,
    chance: random.Random,
    folder: Path,
    children: bool,
) -> Counter:
    """Kill and repeat the command until it ends; return the number of kills in each phase."""
    deaths: Counter = Counter()
    for number in range(10 * kills):
        attempt = Attempt(name, words, number=1 if children else number, folder=folder)
        if deaths.total() < kills:
            if children:
                attempt.wait_for_training()
                phase = attempt.kill_child_after(
                    chance.uniform(0, 1.2 * uninterrupted_step), chance
                )
                if phase is None and attempt.process.wait() == 0:
                    return deaths
            elif chance.random() < 0.15:
                phase = attempt.kill_after(chance.uniform(0, 6))  # during the start
            else:
                attempt.wait_for_training()
                phase = attempt.kill_after(
                    chance.uniform(0, 1.2 * uninterrupted_step)
                )  # so that it does not end too early
            if phase is not None:
                deaths[phase] += 1
                continue
        if attempt.process.wait() == 0:
            return deaths
        raise SystemExit(f"attempt {number} failed: see {folder / f'{name}.log'}")
    raise SystemExit("it did not end")


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return TensorBoard's curves and images except the speed."""
    seen = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0})
    seen.Reload()
    tags = seen.Tags()
    found = {
        tag: [(event.step, event.value) for event in seen.Scalars(tag)] for tag in tags["scalars"]
    }
    found |= {
        tag: [(event.step, len(event.encoded_image_string)) for event in seen.Images(tag)]
        for tag in tags["images"]
    }
    found.pop("train/images_per_second", None)
    return found


def compare(alone: Path, killed: Path) -> dict[str, bool]:
    """Return for each result whether both runs have it bit-exactly."""
    equal = {
        file: (alone / file).read_bytes() == (killed / file).read_bytes()
        for file in ("model.pth", "metrics.csv")
    }
    results = [json.loads((run / "result.json").read_text()) for run in (alone, killed)]
    for key in ("metrics", "per_class", "monitored", "epochs", "steps"):
        equal[f"result.json {key}"] = results[0][key] == results[1][key]
    return equal | {"TensorBoard's curves": curves(alone) == curves(killed)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=[*CASES, *CHILDREN])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("outputs/crash"))
    options = parser.parse_args()
    failed = False
    for case in options.cases:
        folder = (options.folder / case).absolute()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        words = CASES[CHILDREN.get(case, case)].split()
        attempt = Attempt("alone", words, number=0, folder=folder)
        attempt.wait_for_training()
        began = time.monotonic()
        if attempt.process.wait() != 0:
            raise SystemExit(f"it fails without a kill: see {folder / 'alone.log'}")
        seconds = time.monotonic() - began
        chance = random.Random(options.seed)
        uninterrupted_step = seconds / options.kills
        children = case in CHILDREN
        deaths = run_with_kills(
            "killed",
            words,
            kills=options.kills,
            uninterrupted_step=uninterrupted_step,
            chance=chance,
            folder=folder,
            children=children,
        )
        same = compare(folder / "outputs/alone", folder / "outputs/killed")
        print(f"{case}: {seconds:.0f} s of work alone; {deaths.total()} kills")
        for phase, count in deaths.most_common():
            print(f"  {count:3d} in: {phase}")
        for what, equal in same.items():
            print(f"  {what}: {'the same' if equal else 'DIFFERENT'}")
        failed |= not all(same.values())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
