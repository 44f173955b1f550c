"""Kills a run at random moments and repeats its command, until it is finished: is it the run that was left alone?

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
    # dropout, batch norm, augmentation, one-cycle by steps, accumulated gradients, EMA, early stopping, best so far
    "classify": "model=resnet20_dropout augment=pad_crop trainer.accumulate_grad_batches=2 data.batch_size=32 "
    "trainer.limit_train_batches=80 trainer.max_epochs=12",
    # checkpoints of 456 MB every 5 batches: half of the time goes into writing them
    "heavy": "model=alexnet data.spec.image_size=[64,64] optimizer=sgd optimizer.lr=0.01 data.batch_size=8 "
    "trainer.limit_train_batches=30 trainer.limit_val_batches=10 trainer.limit_test_batches=10 trainer.max_epochs=4",
    # the same by two processes
    "two": "model=resnet20_dropout augment=pad_crop trainer=ddp_cpu trainer.accumulate_grad_batches=2 data.batch_size=16 "
    "trainer.limit_train_batches=80 trainer.max_epochs=12",
    # masks that move with their pictures by scale and crop, dropout in the head, an auxiliary head, balanced classes
    "segment": "task=segment head=deeplabv3 augment=scale_jitter data.spec.image_size=[64,64] data.num_images.train=160 "
    "data.num_images.val=32 data.num_images.test=32 trainer.max_epochs=8",
    # boxes that move with their pictures, four pictures in one, losses that draw samples in training and in validation
    "detect": "task=detect head=faster_rcnn head.channels=32 augment=mosaic data.spec.image_size=[64,64] "
    "data.num_images.train=120 data.num_images.val=24 data.num_images.test=24 trainer.max_epochs=6",
    # two networks with an optimiser each, steps of two batches by turns, an averaged generator, penalties, classes
    "generate": "task=generate model.conditioning=projection model.spectral_norm=true task.loss=hinge task.r1_weight=0.1 "
    "task.n_critic=2 task.diffaugment=[translation] scheduler=cosine trainer.accumulate_grad_batches=2 "
    "callbacks.ema=null task.num_samples=200 trainer.limit_train_batches=80 trainer.max_epochs=8",
}
"""A task is a line: words that its command has besides COMMON."""

CHILDREN = {"worker": "classify", "second": "two"}
"""case: the case whose words it has; here a child of the command is killed, a worker that reads ahead or the second of
two processes, and the command itself must end in words."""

SECONDS_TO_END = 60.0
"""That a command has after a child of it was killed."""

COMMON = (
    *("--config-dir", str(HERE / "conf"), "callbacks=everything", "trainer=cpu"),
    "trainer.plugins.checkpoints._target_=phases.TellingCheckpoints",
)

WORKERS = (0, 2, 1)
"""Of one life and the next: their number must not matter."""


class Life:
    """One process of the command.

    Args:
        name: the run's name.
        words: of the case.
        number: of the life, which decides the workers.
        folder: where outputs/ lies.
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

    def wait_until_at_work(self) -> None:
        while self.phase in ("starting", "reading a checkpoint") and self.process.poll() is None:
            time.sleep(0.01)

    def die_after(self, seconds: float) -> str | None:
        """In which phase it was killed; None where it had ended before."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            return self.phase
        return None

    def lose_child_after(self, seconds: float, chance: random.Random) -> str | None:
        """In which phase a child was killed; None where there was none, or the command did not need it any more."""
        time.sleep(seconds)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = children.read_text().split() if self.process.poll() is None else []
        if not found:
            return None
        phase = self.phase
        os.kill(int(chance.choice(found)), signal.SIGKILL)
        try:
            code = self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit(f"it hangs after the loss of a child: see {self.log.name}") from None
        if code == 0:
            return None
        last = Path(self.log.name).read_text().rstrip().splitlines()[-1]
        if code != 1 or "Traceback" in Path(self.log.name).read_text() or "was" not in last:
            raise SystemExit(
                f"after the loss of a child it ended with code {code}: see {self.log.name}"
            )
        return phase


def killed(
    name: str,
    words: list[str],
    *,
    kills: int,
    rhythm: float,
    chance: random.Random,
    folder: Path,
    children: bool,
) -> Counter:
    """Run to the end through many deaths; phase: deaths in it."""
    deaths: Counter = Counter()
    for number in range(10 * kills):
        life = Life(name, words, number=1 if children else number, folder=folder)
        if deaths.total() < kills:
            if children:
                life.wait_until_at_work()
                phase = life.lose_child_after(chance.uniform(0, 1.2 * rhythm), chance)
                if phase is None and life.process.wait() == 0:
                    return deaths
            elif chance.random() < 0.15:
                phase = life.die_after(chance.uniform(0, 6))  # while it starts, reads and builds
            else:
                life.wait_until_at_work()
                phase = life.die_after(
                    chance.uniform(0, 1.2 * rhythm)
                )  # so that it does not end too early
            if phase is not None:
                deaths[phase] += 1
                continue
        if life.process.wait() == 0:
            return deaths
        raise SystemExit(f"life {number} failed: see {folder / f'{name}.log'}")
    raise SystemExit("it never ended")


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, but for the speed."""
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
    """What is the same to the bit."""
    same = {
        file: (alone / file).read_bytes() == (killed / file).read_bytes()
        for file in ("model.pth", "metrics.csv")
    }
    results = [json.loads((run / "result.json").read_text()) for run in (alone, killed)]
    for key in ("metrics", "per_class", "monitored", "epochs", "steps"):
        same[f"result.json {key}"] = results[0][key] == results[1][key]
    return same | {"TensorBoard's curves": curves(alone) == curves(killed)}


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
        life = Life("alone", words, number=0, folder=folder)
        life.wait_until_at_work()
        began = time.monotonic()
        if life.process.wait() != 0:
            raise SystemExit(f"it fails without a kill: see {folder / 'alone.log'}")
        seconds = time.monotonic() - began
        chance = random.Random(options.seed)
        rhythm = seconds / options.kills
        children = case in CHILDREN
        deaths = killed(
            "killed",
            words,
            kills=options.kills,
            rhythm=rhythm,
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
