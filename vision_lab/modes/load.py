"""Loading of trained networks, to evaluate them or to predict."""

from dataclasses import replace

from vision_lab import build
from vision_lab.config.resolution import Config
from vision_lab.core.errors import ConfigurationError
from vision_lab.core.spec import DataSpec
from vision_lab.run_folders.folder import Run
from vision_lab.tasks.base import Task
from vision_lab.training.checkpoint_io import load_weights


def load_trained_task(config: Config, run: Run) -> Task:
    """Build the task with the weights of a run's best checkpoint.

    Args:
        config: the run's config, possibly with overrides.
        run: the run.

    Returns:
        The task, with the classes and image size that the network was trained on.

    Raises:
        ConfigurationError: if the run has no weights yet, or they do not fit the network.
    """
    if not run.weights.is_file():
        raise ConfigurationError(
            f"{run.folder} has no model.pth: the run is {run.state or 'not started'}; repeat its "
            "command, or choose another run"
        )
    network = build.network(config, DataSpec.from_config(run.spec), trained=True)
    if "data" in config.from_run:  # the command line may change the size of the images
        image_size = build.spec(config).image_size
        network = network._replace(spec=replace(network.spec, image_size=image_size))
    task = build.task(config, network)
    load_weights(task.load_network_state_dict, run.weights)
    return task


def adapt_data_spec(task: Task, data: DataSpec) -> tuple[DataSpec, list[int] | None]:
    """Adapt the spec of other data to a trained network.

    Args:
        task: the task with the trained network.
        data: spec of the data.

    Returns:
        The spec to load the data with, and the network's label for each label of the data; None if
        the labels are the same.
    """
    if not task.uses_class_labels:
        fields = ("image_size", "channels", "mean", "std")
        return replace(data, **{name: getattr(task.spec, name) for name in fields}), None
    return task.spec, map_classes(task, data)


def map_classes(task: Task, data: DataSpec) -> list[int] | None:
    """Return the network's label for each label of the data, matched by class name.

    Args:
        task: the task with the trained network.
        data: spec of the data.

    Returns:
        The labels; None if the classes are the same.

    Raises:
        ConfigurationError: if the data has a class that the network does not have.
    """
    known = task.spec.class_names
    if data.target_type != task.spec.target_type:
        raise ConfigurationError(
            f"the network was trained on {task.spec.target_type}, this data has {data.target_type}"
        )
    if data.class_names == known:
        return None
    unknown = []
    for name in data.class_names:
        if name not in known:
            unknown.append(name)
    if unknown:
        raise ConfigurationError(
            f"the data has classes that the network was not trained on: {', '.join(unknown)}; its "
            f"classes are {', '.join(known)}"
        )
    return [known.index(name) for name in data.class_names]
