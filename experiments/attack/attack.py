"""Attack the command line with damaged and malicious input: does anything run, write elsewhere, crash or hang?

python experiments/attack/attack.py [runs] [annotations] [images] [words] [--count 100] [--seed 0] [--jobs 2]
python experiments/attack/attack.py runs --start 900 --count 1000  # continue
python experiments/attack/attack.py runs --only 17    # one attempt again; its folder is kept

Attempt k of a family is a function of (seed, family, k), whatever the number of jobs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import guard
import targets
from guard import Finding

FAMILIES = {
    "runs": targets.attack_run_folder,
    "annotations": targets.attack_annotations,
    "images": targets.attack_images,
    "words": targets.attack_command_line,
}
"""family: a function that writes the files of an attempt into a folder and returns the words of its command."""

FULL_COUNTS = {"runs": 5000, "annotations": 5000, "images": 2000, "words": 2000}
"""Attempts of each family with ``--count full``."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", help=f"of {', '.join(FAMILIES)}; all by default")
    parser.add_argument(
        "--count", default="100", help="attempts of each family, or full: 5000, 5000, 2000, 2000"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="attempts at the same time")
    parser.add_argument(
        "--start", type=int, default=0, help="the number of the first attempt, to continue"
    )
    parser.add_argument("--only", type=int, help="the number of one attempt")
    parser.add_argument("--folder", type=Path, default=Path("outputs/attack"))
    options = parser.parse_args()
    folder = options.folder.absolute()
    if folder.exists():
        parser.error(f"{options.folder} is there already: remove it, or type another --folder")
    folder.mkdir(parents=True)
    targets.make_runs(folder / "runs")
    guard.prepare()
    found = 0
    for family in options.families or FAMILIES:
        count = FULL_COUNTS[family] if options.count == "full" else int(options.count)
        numbers = range(options.start, count) if options.only is None else [options.only]
        found += attack(family, numbers, folder=folder, seed=options.seed, jobs=options.jobs)
    return int(found > 0)


def attack(family: str, numbers: range | list[int], *, folder: Path, seed: int, jobs: int) -> int:
    """Run the attempts of a family and print what came of them.

    Returns:
        The number of findings.
    """
    began = time.monotonic()
    codes: Counter[str] = Counter()
    findings: list[Finding] = []
    waiting, running = list(reversed(numbers)), {}
    with (folder / f"{family}.jsonl").open("w") as log:
        while waiting or running:
            if waiting and len(running) < jobs:
                number = waiting.pop()
                place = folder / family / str(number)
                attempt = guard.start(
                    FAMILIES[family], Random(f"{seed} {family} {number}"), folder / "runs", place
                )
                running[number] = attempt
                continue
            for number, attempt in list(running.items()):
                outcome = attempt.poll()
                if outcome is None:
                    continue
                del running[number]
                codes[outcome.ending] += 1
                log.write(
                    json.dumps({"number": number, "ending": outcome.ending, "words": outcome.words})
                    + "\n"
                )
                for finding in outcome.findings:
                    findings.append(finding)
                    print(f"  {family} {number}: {finding.kind}: {finding.text}", flush=True)
                if not outcome.findings and len(numbers) > 1:
                    shutil.rmtree(attempt.folder, ignore_errors=True)
            time.sleep(0.005)
    minutes = (time.monotonic() - began) / 60
    print(
        f"{family}: {len(numbers)} attempts in {minutes:.1f} minutes, {dict(codes.most_common())}"
    )
    kinds = Counter(finding.kind for finding in findings)
    print(f"{family}: {len(findings)} findings {dict(kinds.most_common())}", flush=True)
    return len(findings)


if __name__ == "__main__":
    sys.exit(main())
