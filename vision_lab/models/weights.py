"""Pretrained weights from torchvision or a file.

Classes, image channels and stem of the network may differ from those of the weights.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.transforms._presets import ObjectDetection

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import expand_home, reject_compressed
from vision_lab.core.protocols import LoadedWeights
from vision_lab.core.text import first_line, summarize_names
from vision_lab.models.stem import adapt_input_kernel, first_convolution

StateDict = dict[str, Tensor]

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts store the state dict."""

PREFIXES = ("", "module.", "model.", "_orig_mod.", "backbone.", "network.", "encoder.")
"""Prefixes of keys by DataParallel, Lightning modules, torch.compile, detectors, our tasks and
autoencoders."""

RUN_PREFIX = "run:"
"""Before the folder of a run whose weights are meant."""

TF_PREPROCESSED = {"inception_v3", "googlenet"}
"""Networks whose published weights expect images in [-1, 1]; torchvision's ``transform_input``
converts them inside the network."""

LOAD_ERRORS = (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, IndexError, ValueError)
"""Exceptions of torch for a file that it did not write, or that contains other objects."""

MAX_LISTED = 6
"""Maximum number of keys listed in an error."""

_OLD_DENSENET_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


class _Weights(NamedTuple):
    """A state dict, and the normalization it expects."""

    state: StateDict
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class _Mismatch(NamedTuple):
    """Keys of a state dict and a network that do not match."""

    mismatched: list[str]
    missing_keys: list[str]
    unexpected_keys: list[str]


def load(
    network: nn.Module,
    source: str,
    *,
    constructor: str,
    class_layers: Collection[str],
    key: str = "model.weights",
) -> LoadedWeights:
    """Load pretrained weights into a network, in place.

    Args:
        network: the network, already adapted to the data.
        source: ``imagenet`` or ``coco`` for torchvision's default; a name in its enumeration
            (``IMAGENET1K_V2``); a file; or ``run:`` and the folder of a run.
        constructor: torchvision's name of the network.
        class_layers: parameters whose shapes depend on the number of classes, which need not match.
        key: config key of the source, for errors.

    Returns:
        What was loaded, and the normalization the weights expect.

    Raises:
        ConfigurationError: if the weights do not exist, cannot be loaded safely, or do not fit.
    """
    path = expand_home(source)
    if source.startswith(RUN_PREFIX):
        path = expand_home(source.removeprefix(RUN_PREFIX)) / "model.pth"
        if not path.is_file():
            raise ConfigurationError(
                f"{key}={source}: there is no {path}: type {RUN_PREFIX}<folder of a finished run>"
            )
    if path.is_file():
        weights = _Weights(_read_file(path, key))
    elif "/" in source or "\\" in source or path.suffix:
        raise ConfigurationError(f"{key}={source}: there is no such file")
    else:
        weights = _download(source, constructor, key)
    matched, ignored = _match_state_dict(
        weights.state, network, source=f"{key}={source}", class_layers=class_layers
    )
    if constructor in TF_PREPROCESSED:
        weights = weights._replace(mean=(0.5,), std=(0.5,))
    own = network.state_dict()
    missing_keys = []
    for name in own:
        if name not in matched and not _is_counter(name):
            missing_keys.append(name)
    network.load_state_dict(own | matched)
    summary = f"{path.name}: {len(matched)} of {len(own)} tensors loaded"
    if missing_keys:
        summary += f"; randomly initialized: {', '.join(missing_keys)}"
    if ignored:
        summary += f"; ignored: {', '.join(ignored)}"
    return LoadedWeights(summary, tuple(missing_keys), weights.mean, weights.std)


def _download(
    name: str,
    constructor: str,
    key: str,
) -> _Weights:
    """Load weights from torchvision, downloading them if necessary."""
    try:
        enumeration = torchvision.models.get_model_weights(constructor)
    except ValueError:
        raise ConfigurationError(
            f"{key}={name}: torchvision has no weights for {constructor}: type a weights file, or "
            "null"
        ) from None
    names = [member.name for member in enumeration]
    default = "imagenet" if enumeration.DEFAULT.name.startswith("IMAGENET") else "coco"
    if name != default and name not in names:
        raise ConfigurationError(
            f"{key}={name}: there is no such file, and torchvision's weights for {constructor} are "
            f"{default}, {', '.join(names)}"
        )
    member = enumeration.DEFAULT if name == default else enumeration[name]
    try:
        state = member.get_state_dict(
            progress=False,
            check_hash=True,
            weights_only=True,
        )
    except OSError as error:  # those of urllib are OSErrors
        file = member.url.rsplit("/", 1)[-1]
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise ConfigurationError(
            f"{key}={name}: {member.url} cannot be downloaded: {error}\nDownload it elsewhere, "
            f"then type {key}=<folder>/{file}, or copy it to {folder}"
        ) from error
    preset = member.transforms()
    if not isinstance(preset, ObjectDetection):
        return _Weights(state, tuple(preset.mean), tuple(preset.std))
    with torch.device("meta"):  # detectors normalize images themselves
        detector = torchvision.models.get_model(constructor, weights=None, weights_backbone=None)
    transform = detector.transform
    return _Weights(state, tuple(transform.image_mean), tuple(transform.image_std))


def _read_file(path: Path, key: str) -> StateDict:
    try:
        reject_compressed(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (*LOAD_ERRORS, OSError) as error:
        raise ConfigurationError(
            f"{key}={path}: it is not a file of tensors that can be loaded without running code in "
            f"it ({first_line(error)})\nSave it again with torch.save(network.state_dict(), file)."
        ) from error
    for wrapper in STATE_DICT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    state: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        for name, value in content.items():
            if isinstance(value, Tensor):
                state[str(name)] = value
    if not state:
        raise ConfigurationError(f"{key}={path}: it contains no state dict")
    return state


def _match_state_dict(
    state: StateDict, network: nn.Module, *, source: str, class_layers: Collection[str]
) -> tuple[StateDict, list[str]]:
    """Match a state dict with a network.

    Returns:
        The tensors to load, with the network's own keys, and the modules that are ignored.

    Raises:
        ConfigurationError: if they do not fit.
    """
    own = network.state_dict()
    state = _normalize_keys(state, own)
    _adapt_first_convolution(state, network)
    matched = {}
    for name, value in state.items():
        if name in own and value.shape == own[name].shape:
            matched[name] = value
    ignored = []
    for name in state:
        if name not in own:
            ignored.append(name)
    # An auxiliary classifier that is disabled is None in the network.
    unexpected = []
    for name in ignored:
        if getattr(network, name.split(".")[0], network) is not None:
            unexpected.append(name)
    mismatched, missing = [], []
    for name in own:
        if name in class_layers or name in matched:
            continue
        if name in state:
            mismatched.append(name)
        elif not _is_counter(name):
            missing.append(name)
    if mismatched or missing or unexpected:
        mismatch = _Mismatch(mismatched, missing, unexpected)
        raise ConfigurationError(_mismatch_message(source, state, network, mismatch))
    return matched, sorted({name.split(".")[0] for name in ignored})


def _normalize_keys(state: StateDict, own: Mapping[str, Tensor]) -> StateDict:
    """Remove the prefix with which most keys match, and rename keys of old DenseNets."""
    state = {_OLD_DENSENET_KEY.sub(r"\1\2", name): value for name, value in state.items()}
    prefix = max(PREFIXES, key=lambda prefix: sum(prefix + name in state for name in own))
    stripped = {}
    for k, v in state.items():
        if k.startswith(prefix):
            stripped[k.removeprefix(prefix)] = v
    return stripped


def _adapt_first_convolution(state: StateDict, network: nn.Module) -> None:
    """Adapt the first kernel to the number of image channels, in place, unless its size differs."""
    found = first_convolution(network)
    if found is None:
        return
    name, first = found
    kernel = state.get(f"{name}.weight")
    if kernel is not None and kernel.ndim == 4 and kernel.shape[2:] == first.weight.shape[2:]:
        state[f"{name}.weight"] = adapt_input_kernel(kernel, first.in_channels)


def _is_counter(name: str) -> bool:
    """Return whether a tensor counts the batches of a batch norm; old weights lack them."""
    return name.endswith("num_batches_tracked")


def _mismatch_message(
    source: str, state: StateDict, network: nn.Module, mismatch: _Mismatch
) -> str:
    own = network.state_dict()
    lines = [f"{source} does not fit the network (only the classification layer may differ):"]
    if mismatch.mismatched:
        shapes = [
            f"{name} {_format_shape(state[name])} instead of {_format_shape(own[name])}"
            for name in mismatch.mismatched
        ]
        lines.append("  other shapes: " + summarize_names(shapes, MAX_LISTED))
    if mismatch.missing_keys:
        names = summarize_names(mismatch.missing_keys, MAX_LISTED)
        lines.append(f"  missing from the file: {names}")
    if mismatch.unexpected_keys:
        names = summarize_names(mismatch.unexpected_keys, MAX_LISTED)
        lines.append(f"  missing from the network: {names}")
    found = first_convolution(network)
    if found is not None and mismatch == _Mismatch([f"{found[0]}.weight"], [], []):
        lines.append(
            "The first convolution is smaller, for small images: type model.stem=imagenet."
        )
    return "\n".join(lines)


def _format_shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
