"""The command line: parse it, compose the config with Hydra, run the mode.

Torch is not imported before a mode requires it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_lab.cli import completion
from vision_lab.cli.help import format_help
from vision_lab.config.groups import CONFIG_DIR
from vision_lab.config.overrides import CommandLine
from vision_lab.core import lean_imports, signals
from vision_lab.core.errors import UserError
from vision_lab.core.failures import explain_failure
from vision_lab.core.garbage_collection import collection_paused
from vision_lab.core.text import display_text
from vision_lab.run_folders.folder import Run

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXIT_INTERRUPTED = 130
"""Exit code of an interrupted command: 128 + SIGINT."""

SUBMITIT = "SUBMITIT_EXECUTOR"
"""Variable of jobs of submitit, which waits ten minutes for a job that reports no exception."""

_started_jobs: list[Path] = []
"""Folders of the jobs that this command has started; until the first, errors are in its words."""


class _RunFailed(BaseException):
    """Ends a single run whose error was printed; not an Exception, which Hydra would report."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        words: the words after ``python -m vision_lab``; by default those of ``sys.argv``.

    Returns:
        The exit code: 0 for success, 1 if a run failed, 2 if the command line is invalid, 130 if
        the command was interrupted.
    """
    words = list(sys.argv[1:] if words is None else words)
    try:
        if "--help" in words or "-h" in words:
            print(format_help(words))
            return 0
        if completion.FLAG in words:
            print(completion.answer(words[words.index(completion.FLAG) + 1 :]), end="")
            return 0
        lean_imports.import_without(
            "torchmetrics",
            optional=("scipy", "matplotlib"),
            first=("torch", "torchvision"),
        )
        with signals.signals_as_interrupt():
            return _run_commands(CommandLine.parse(words))
    except UserError as error:
        return _print_error(error, code=2)
    except (KeyboardInterrupt, signals.Interrupted):
        if signals.is_rank_zero():
            print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if _started_jobs:
            return 1
        return 0


def _run_commands(command: CommandLine) -> int:
    """Run a command, or one for each run that ``run=`` lists."""
    from vision_lab.cli import suggestions

    try:
        commands = command.split_runs()
    except Exception as error:  # of Hydra's grammar
        return _print_error(UserError(suggestions.explain_error(command, error)), code=2)
    return max(_run_hydra(single) for single in commands)


def _run_hydra(command: CommandLine) -> int:
    from vision_lab.cli import suggestions
    from vision_lab.config import resolvers, saved
    from vision_lab.run_folders import sweep

    _started_jobs.clear()
    sweep.reset()
    errors = suggestions.find_command_errors(command)
    if errors:
        return _print_error(UserError("\n".join(errors)), code=2)
    try:
        saved.remember_trust(command)
        composed, saved_run = saved.add_saved_config(command)
        resolvers.register_resolvers(saved_run)
        if command.shows_resolved_job:
            return _show_resolved(composed)
        _call_hydra(composed)
    except _RunFailed as failed:
        return failed.code
    except sweep.SweepRefused as refused:
        return _print_error(UserError(str(refused)), code=2)
    except Exception as error:
        return _handle_error(command, error)
    return sweep.finish_sweep()


def _call_hydra(command: CommandLine) -> None:
    import hydra

    excluded = ",".join(_find_unswept_keys(command))
    exclude = f"hydra.job.config.override_dirname.exclude_keys=[{excluded}]"
    sys.argv[1:] = [*command.words, exclude]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them
    hydra.main(
        version_base="1.3",
        config_path=str(CONFIG_DIR),
        config_name="config",
    )(run_job)()


def _handle_error(command: CommandLine, error: Exception) -> int:
    """Print an error of composing or running, unless it needs its traceback.

    Returns:
        The exit code.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from vision_lab.cli import suggestions
    from vision_lab.run_folders import sweep

    if _started_jobs and isinstance(error, UserError) and sweep.has_started():
        code = _print_error(error, code=1)
        return max(sweep.finish_sweep(), code)
    if _started_jobs:
        raise error
    sweep.reset()
    cause = _find_user_error(error) or explain_failure(error, Path()) or _explain_folder(error)
    if cause is None:
        if not isinstance(error, HydraException | OmegaConfBaseException):
            raise error
        cause = UserError(suggestions.explain_error(command, error))
    return _print_error(cause, code=2)


def _show_resolved(command: CommandLine) -> int:
    """Print the resolved config of a job, resolving each interpolation only once."""
    from vision_lab.config.composition import compose_command, resolve_composed
    from vision_lab.config.resolution import to_printable
    from vision_lab.core.documents import dump_yaml

    composed = compose_command(command)
    values: Any = resolve_composed(composed).values
    package = command.flag_value("--package", "-p")
    for key in package.split(".") if package else ():
        if not isinstance(values, dict) or key not in values:
            return _print_error(UserError(f"package {package!r} not found in config"), code=1)
        values = values[key]
    if package:
        print(f"# @package {package}")
    print(dump_yaml(to_printable(values)), end="")
    return 0


def run_job(composed: DictConfig) -> Any:
    """Run one job; Hydra calls this once, or for each job of a sweep.

    Args:
        composed: the job's config, with interpolations unresolved.

    Returns:
        What the mode returns: for training, the monitored metric.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_config = HydraConfig.get()
    _enter_folder(hydra_config.runtime.cwd)
    folder = Path(hydra_config.runtime.output_dir)
    is_sweep = hydra_config.mode == RunMode.MULTIRUN
    _started_jobs.append(folder)
    try:
        with signals.signals_as_interrupt() if not signals.handles_signals() else nullcontext():
            return _run_mode(composed, folder)
    except signals.Interrupted:
        if SUBMITIT in os.environ:
            raise UserError("interrupted") from None
        raise
    except Exception as error:
        known = explain_failure(error, folder) or error
        if isinstance(known, UserError):
            _print_error(known, code=1)
            if not is_sweep:
                raise _RunFailed(1) from None
        elif is_sweep:
            traceback.print_exc()
        if is_sweep:
            _record_failure(folder, known)
        raise
    finally:
        # Hydra creates the folder before the run can be refused.
        if signals.is_rank_zero() and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _enter_folder(folder: str) -> None:
    """Change to the working directory of the command, for a job in a process of a cluster."""
    if Path.cwd() != Path(folder) and Path(folder).is_dir():
        os.chdir(folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # for `_target_`s in the user's working directory


def _run_mode(composed: DictConfig, folder: Path) -> Any:
    from vision_lab.config.composition import resolve_composed
    from vision_lab.config.modes import build_mode
    from vision_lab.modes import finished

    config = resolve_composed(composed)
    score = finished.show_if_finished(config, folder)
    if score is not None:
        return score
    with collection_paused():
        mode = build_mode(config)  # most modes import torch
    return mode(config, folder)


def _record_failure(folder: Path, error: Exception) -> None:
    """Record that a job of a sweep failed before it had a status, for the sweep's table."""
    run = Run(folder)
    if run.state is None:
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            run.fail(error)


def _find_unswept_keys(command: CommandLine) -> list[str]:
    """Return the keys that a sweep does not vary, and that folder names therefore leave out."""
    if not command.is_sweep:
        return []
    fixed = []
    for override in command.parsed:
        if not override.is_sweep_override():
            fixed.append(override)
    return sorted({override.key_or_group for override in fixed})


def _explain_folder(error: Exception) -> UserError | None:
    """Explain why Hydra could not create the output folder."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    return UserError(
        f"{error.filename}: {error.strerror}: type hydra.run.dir=<a writable folder> (in a sweep "
        "hydra.sweep.dir), or remove the file or folder in the way"
    )


def _find_user_error(error: BaseException | None) -> UserError | None:
    """Return our own error that Hydra or OmegaConf has wrapped, if there is one."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _print_error(error: UserError, *, code: int) -> int:
    mark = "\033[1;31merror:\033[0m" if sys.stderr.isatty() else "error:"
    print(f"{mark} {display_text(error)}", file=sys.stderr)
    return code
