"""The commands of SLURM that start jobs, on this machine: each task is a process.

``install`` writes ``sbatch``, ``srun``, ``sacct`` and ``scancel``, which read and write files in one
folder. They have only the options that are used by submitit and in the documentation.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "scancel")
FIRST_JOB = 100


def install(folder: Path) -> dict[str, str]:
    """Write the commands to a folder.

    Returns:
        The environment variables by which they are found.
    """
    folder.mkdir()
    for name in COMMANDS:
        file = folder / name
        file.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import stand_in\nstand_in.{name}(sys.argv[1:])\n"
        )
        file.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "SLURM_STAND_IN": str(folder)}


def sbatch(words: list[str]) -> None:
    """Start the tasks of a job array, or a job, and print its number."""
    script = Path(words[-1])
    options = {}
    for line in script.read_text().splitlines():
        if line.startswith("#SBATCH --"):
            key, _, value = line.removeprefix("#SBATCH --").partition("=")
            options[key] = shlex.split(value)[0] if value else ""
    folder = Path(os.environ["SLURM_STAND_IN"])
    number = FIRST_JOB + len(list(folder.glob("job-*")))
    (folder / f"job-{number}").mkdir()
    count = (
        int(options["array"].partition("-")[2].partition("%")[0]) + 1 if "array" in options else 0
    )
    variables = {
        "SLURM_NTASKS": options.get("ntasks-per-node", "1"),
        "SLURM_JOB_NAME": options["job-name"],
    }
    for index in range(count) if count else (None,):
        name = str(number) if index is None else f"{number}_{index}"
        job = {"SLURM_JOB_ID": name, **variables}
        if index is not None:
            job |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(index)}
        output = (
            options["output"]
            .replace("%A", str(number))
            .replace("%a", str(index))
            .replace("%j", name)
        )
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        file = folder / f"job-{number}" / name
        with Path(f"{output}.sbatch").open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", 'bash "$0"; touch "$1"', str(script), f"{file}.ended"],
                env=os.environ | job,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        file.write_text(str(process.pid))
    print(f"Submitted batch job {number}")


def srun(words: list[str]) -> None:
    """Run a command in all tasks, and end them all if one fails."""
    options: dict[str, str] = {}
    while words[0].startswith("--"):
        key, equals, value = words.pop(0).removeprefix("--").partition("=")
        if not equals and key in ("output", "error"):
            value = words.pop(0)
        options[key] = value
    tasks = int(options.get("ntasks", os.environ.get("SLURM_NTASKS", "1")))
    job = {
        "SLURM_JOB_ID": os.environ.get("SLURM_JOB_ID", "99"),
        "SLURM_JOB_NAME": os.environ.get("SLURM_JOB_NAME", Path(words[0]).name),
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks),
        "SLURM_NNODES": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_JOB_NODELIST": "127.0.0.1",
    }
    processes = []
    for rank in range(tasks):
        streams = {}
        for key, stream in ("output", "stdout"), ("error", "stderr"):
            if key in options:
                streams[stream] = Path(_fill(options[key], job, rank)).open("ab")  # noqa: SIM115
        variables = {**job, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        processes.append(subprocess.Popen(words, env=os.environ | variables, **streams))
    signal.signal(signal.SIGTERM, lambda *_: [process.terminate() for process in processes])
    while any(process.poll() is None for process in processes):
        if any(process.returncode for process in processes):
            for process in processes:
                process.terminate()
        time.sleep(0.05)
    sys.exit(max(abs(process.returncode) for process in processes))


def _fill(pattern: str, job: dict[str, str], rank: int) -> str:
    values = {"j": job["SLURM_JOB_ID"], "t": str(rank)}
    array, _, index = job["SLURM_JOB_ID"].partition("_")
    values |= {"A": array, "a": index}
    return re.sub("%([jtAa])", lambda found: values[found[1]], pattern)


def sacct(_words: list[str]) -> None:
    """Print the states of all jobs."""
    print("JobID|State|NodeList")
    for file in sorted(Path(os.environ["SLURM_STAND_IN"]).glob("job-*/*")):
        if not file.suffix:
            state = "COMPLETED" if file.with_name(f"{file.name}.ended").exists() else "RUNNING"
            print(f"{file.name}|{state}|127.0.0.1")


def scancel(words: list[str]) -> None:
    """Send SIGTERM to the tasks of a job, or another signal."""
    number = signal.SIGTERM
    if "--signal" in words:
        number = signal.Signals[words[words.index("--signal") + 1]]
    for file in Path(os.environ["SLURM_STAND_IN"]).glob(f"job-*/{words[0]}"):
        os.killpg(int(file.read_text()), number)
