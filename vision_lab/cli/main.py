"""From the words of a command line to a mode at work. No torch is imported before a mode needs it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_lab.cli import help
from vision_lab.config.groups import CONFIG_DIR, config_folders
from vision_lab.core import signals
from vision_lab.core.errors import UserError
from vision_lab.core.failures import explain_failure
from vision_lab.core.text import display_text
from vision_lab.runs.folder import Run

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from vision_lab.config.resolution import Config

EXIT_INTERRUPTED = 130
"""The exit code of a command that was asked to end."""


def main(words: Sequence[str] | None = None) -> int:
    """Do what a command line asks for.

    Returns:
        The exit code: 0; 1 where something failed; 2 where the words themselves are wrong.
    """
    words = list(sys.argv[1:] if words is None else words)
    try:
        if "--help" in words or "-h" in words:
            print(help.show(words))
            return 0
        with signals.signals_as_interrupt():
            return _run_hydra(words)
    except UserError as error:
        return _print_error(error, code=2)
    except (KeyboardInterrupt, signals.Interrupted):
        if signals.is_rank_zero():
            print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # its reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1 if _started_jobs else 0


def _run_hydra(words: list[str]) -> int:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from vision_lab.cli import suggestions
    from vision_lab.config import overrides, resolvers, saved
    from vision_lab.runs import sweep

    _started_jobs.clear()
    sweep.reset()
    folders = config_folders(words)
    typed = words = overrides.drop_null_groups(overrides.quote_paths(words))
    errors = suggestions.find_word_errors(words, folders)
    if errors:
        return _print_error(UserError("\n".join(errors)), code=2)
    try:
        words, saved_run = saved.add_saved_config(words, folders)
        resolvers.register(saved_run)
        unnamed = ",".join(_unswept_keys(words))
        exclude = f"hydra.job.config.override_dirname.exclude_keys=[{unnamed}]"
        if overrides.asks_for_resolved_job(words):
            return _show_resolved(words, folders)
        sys.argv[1:] = [*overrides.flags_before_overrides(words), exclude]
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(
                0, str(Path.cwd())
            )  # a user's classes are found from the folder the command is typed in
        os.environ["HYDRA_FULL_ERROR"] = (
            "1"  # Hydra raises instead of printing; what a user sees is decided here
        )
        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="config")(run_job)()
    except _RunFailed as failed:
        return failed.code
    except sweep.SweepRefused as refused:
        return _print_error(UserError(str(refused)), code=2)
    except Exception as error:
        if (
            _started_jobs and sweep.has_started()
        ):  # each job of the sweep said what was wrong when it failed
            return max(sweep.finish_sweep(), 1)
        if _started_jobs:
            raise
        sweep.reset()
        cause = _find_user_error(error) or explain_failure(error, Path()) or _explain_folder(error)
        if cause is None and not isinstance(error, HydraException | OmegaConfBaseException):
            raise
        return _print_error(
            cause or UserError(suggestions.explain_error(typed, error, folders=folders)), code=2
        )
    return sweep.finish_sweep()


def _show_resolved(words: list[str], folders: list[Path]) -> int:
    """Print the config of a job with its references followed: by OmegaConf some would be followed twice."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    from vision_lab.config import overrides
    from vision_lab.config.resolution import printable
    from vision_lab.core.documents import dump_yaml

    others = ",".join(f"file://{folder.absolute()}" for folder in folders[1:])
    settings = [*overrides.overrides(words), f"hydra.searchpath=[{others}]"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        composed = compose("config", overrides=settings, return_hydra_config=True)
    HydraConfig.instance().set_config(composed)
    values = _resolved(composed).values
    del values["hydra"]
    package = overrides.flag_value(words, "--package", "-p")
    shown: Any = values
    for key in package.split(".") if package else ():
        if not isinstance(shown, dict) or key not in shown:
            return _print_error(UserError(f"package {package!r} not found in config"), code=1)
        shown = shown[key]
    if package:
        print(f"# @package {package}")
    print(dump_yaml(printable(shown)), end="")
    return 0


def run_job(composed: DictConfig) -> Any:
    """One run: what Hydra calls, once, or for each job of a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from vision_lab.modes import finished

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    _started_jobs.append(folder)
    try:
        config = _resolved(composed)
        score = finished.show_if_finished(config, folder)
        if score is not None:
            return score
        from vision_lab.build import mode

        return mode(config)(config, folder)
    except Exception as error:
        known = explain_failure(error, folder) or error
        if isinstance(known, UserError):
            _print_error(known, code=1)
        elif sweeping:
            traceback.print_exc()
        if not sweeping:
            if isinstance(known, UserError):
                raise _RunFailed(1) from None
            raise  # a defect of ours or of a user's class: its traceback tells more
        run = Run(folder)
        if run.state is None:  # refused before it began: the sweep's table tells all the same
            with suppress(OSError):
                folder.mkdir(exist_ok=True)  # what was refused took its empty folder away
                run.fail(known)
        raise
    finally:
        # Hydra makes the folder before we can refuse; of several processes the first still writes into it.
        if signals.is_rank_zero() and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _resolved(composed: DictConfig) -> Config:
    """The config with its references followed, and what Hydra knows of it."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from vision_lab.config.resolution import resolve_config, words_of_job
    from vision_lab.config.saved import SAVED_OPTION

    hydra_config = HydraConfig.get()
    made = {
        group: choice for group, choice in hydra_config.runtime.choices.items() if "/" not in group
    }
    made.pop("saved", None)
    return resolve_config(
        composed,
        choices={group: OmegaConf.create({"name": f"${{choice:{group}}}"}).name for group in made},
        from_run=[group for group, choice in made.items() if choice == SAVED_OPTION],
        overrides=words_of_job(hydra_config),
    )


_started_jobs: list[Path] = []
"""The folders of the jobs that this command has begun: what fails before the first is a matter of its words."""


class _RunFailed(BaseException):
    """Ends a single run that has said what was wrong; not an Exception, which Hydra would comment on."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _unswept_keys(words: Sequence[str]) -> list[str]:
    """What a sweep does not vary, and so has no place in its folders' names."""
    from vision_lab.config import overrides

    if not any(word in ("-m", "--multirun") for word in words):
        return []
    parsed = overrides.parse_overrides(words)
    return sorted(
        {override.key_or_group for override in parsed if not override.is_sweep_override()}
    )


def _explain_folder(error: Exception) -> UserError | None:
    """What a user can do where Hydra cannot make the folder of a run."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    cure = "type hydra.run.dir=<a folder that can be written> (in a sweep hydra.sweep.dir)"
    return UserError(f"{error.filename}: {error.strerror}: {cure}, or change what is in its way")


def _find_user_error(error: BaseException | None) -> UserError | None:
    """The error of ours that Hydra or OmegaConf wrapped."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _print_error(error: UserError, *, code: int) -> int:
    mark = "\033[1;31merror:\033[0m" if sys.stderr.isatty() else "error:"
    print(f"{mark} {display_text(error)}", file=sys.stderr)
    return code
