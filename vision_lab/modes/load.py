"""A run's network as it was trained, ready to be measured or to predict."""

from dataclasses import replace

from vision_lab import build
from vision_lab.config.resolution import Config
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.spec import DataSpec
from vision_lab.runs.folder import Run
from vision_lab.tasks.base import Task
from vision_lab.training.checkpoint_io import load_weights


def load_trained_task(config: Config, run: Run) -> Task:
    """The task with the network of the run's best checkpoint, for the classes and pictures it was trained on.

    Raises:
        ConfigurationError: where the run has no weights yet, or they do not fit.
    """
    if not run.weights.is_file():
        raise ConfigurationError(
            f"{run.folder} has no model.pth: the run is {run.state or 'not begun'}; repeat its command, or take another"
        )
    network = build.network(config, DataSpec.from_config(run.spec), trained=True)
    if "data" in config.from_run:  # another size may have been typed, for the same data
        network = network._replace(
            spec=replace(network.spec, image_size=build.spec(config).image_size)
        )
    task = build.task(config, network)
    load_weights(task.load_network_state_dict, run.weights)
    return task


def adapt_data_spec(task: Task, data: DataSpec) -> tuple[DataSpec, list[int] | None]:
    """Other data as the network takes it, and the network's class for each of its labels, where they differ."""
    if not task.uses_class_labels:
        ours = {
            name: getattr(task.spec, name) for name in ("image_size", "channels", "mean", "std")
        }
        return replace(data, **ours), None
    return task.spec, class_mapping(task, data)


def class_mapping(task: Task, data: DataSpec) -> list[int] | None:
    """The network's class for each label of the data, by name; None where the two agree.

    Raises:
        ConfigurationError: where the data has a class that the network does not know.
    """
    ours = task.spec.class_names
    if data.target_type != task.spec.target_type:
        raise ConfigurationError(
            f"the network was trained on {task.spec.target_type}, this data has {data.target_type}"
        )
    if data.class_names == ours:
        return None
    unknown = [name for name in data.class_names if name not in ours]
    if unknown:
        raise ConfigurationError(
            f"the data has classes the network was not trained on: {', '.join(unknown)}; it knows {', '.join(ours)}"
        )
    return [ours.index(name) for name in data.class_names]
