"""Learnt weights from torchvision or from a file, into a network whose classes, channels or stem may differ."""

from __future__ import annotations

import pickle
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.transforms._presets import ObjectDetection

from vision_lab.core.errors import ConfigurationError
from vision_lab.core.files import reject_compressed
from vision_lab.core.protocols import LoadedWeights
from vision_lab.core.text import first_line, summarize_names
from vision_lab.models.stem import adapt_input_kernel, first_convolution

State = dict[str, Tensor]

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the state dict."""

PREFIXES = ("", "module.", "model.", "_orig_mod.", "backbone.", "network.")
"""What wrapping puts before a key: DataParallel, Lightning modules, torch.compile, detectors, our checkpoints."""

TF_PREPROCESSED = {"inception_v3", "googlenet"}
"""Networks whose published weights want pictures in [-1, 1]; torchvision's ``transform_input`` does the same inside."""

LOAD_ERRORS = (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, IndexError, ValueError)
"""What torch raises for a file that it did not write, or that holds more than plain tensors."""

MAX_LISTED = 6
"""Keys that an error names."""

_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def load(
    network: nn.Module,
    source: str,
    *,
    constructor: str,
    class_layers: Collection[str],
    key: str = "model.weights",
) -> LoadedWeights:
    """Load weights into ``network``.

    Args:
        network: the classifier, or the whole network, fitted to its data already.
        source: ``imagenet`` or ``coco``, torchvision's default; a name in its enumeration (``IMAGENET1K_V2``); a file.
        constructor: torchvision's name for the network, which finds the enumeration.
        class_layers: the parameters whose shapes hang on the number of classes: these alone may differ.
        key: what the user typed the source for.

    Raises:
        ConfigurationError: where the weights are not to be had, cannot be loaded safely, or do not fit.
    """
    path = Path(source).expanduser()
    if path.is_file():
        state = _from_file(path, key)
        mean: tuple[float, ...] | None = None
        std: tuple[float, ...] | None = None
    elif "/" in source or "\\" in source or path.suffix:
        raise ConfigurationError(f"{key}={source}: there is no such file")
    else:
        state, mean, std = _from_torchvision(source, constructor, key)
    fitted, left_over = _match_state_dict(
        state, network, source=f"{key}={source}", class_layers=class_layers
    )
    if constructor in TF_PREPROCESSED:
        mean = std = (0.5,)
    own = network.state_dict()
    fresh = tuple(
        key for key in own if key not in fitted and not key.endswith("num_batches_tracked")
    )
    network.load_state_dict(own | fitted)
    sentence = f"{path.name}: {len(fitted)} of {len(own)} tensors loaded"
    sentence += f"; drawn anew: {', '.join(fresh)}" if fresh else ""
    sentence += f"; left over: {', '.join(left_over)}" if left_over else ""
    return LoadedWeights(sentence, fresh, mean, std)


def _from_torchvision(
    name: str, constructor: str, key: str
) -> tuple[State, tuple[float, ...], tuple[float, ...]]:
    try:
        enumeration = torchvision.models.get_model_weights(constructor)
    except ValueError:
        raise ConfigurationError(
            f"{key}={name}: torchvision has no weights for {constructor}: type a file of weights, or null"
        ) from None
    members = [member.name for member in enumeration]
    published = "coco" if key == "head.weights" else "imagenet"
    if name != published and name not in members:
        raise ConfigurationError(
            f"{key}={name}: neither a file nor one of torchvision's for {constructor}: "
            f"{published}, {', '.join(members)}"
        )
    weights = enumeration.DEFAULT if name == published else enumeration[name]
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:  # urllib's errors are OSErrors
        file = weights.url.rsplit("/", 1)[-1]
        raise ConfigurationError(
            f"{key}={name}: {weights.url} could not be fetched: {error}\n"
            f"Fetch it where there is a network, then type {key}=<folder>/{file}, "
            f"or put it into {Path(torch.hub.get_dir()) / 'checkpoints'}"
        ) from error
    preset = weights.transforms()
    if isinstance(preset, ObjectDetection):  # detectors normalise inside
        with torch.device("meta"):
            preset = torchvision.models.get_model(
                constructor, weights=None, weights_backbone=None
            ).transform
        return state, tuple(preset.image_mean), tuple(preset.image_std)
    return state, tuple(preset.mean), tuple(preset.std)


def _from_file(path: Path, key: str) -> State:
    try:
        reject_compressed(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (*LOAD_ERRORS, OSError) as error:
        raise ConfigurationError(
            f"{key}={path}: not a file of plain tensors that can be loaded without running code in it "
            f"({first_line(error)})\n"
            "Save it again with torch.save(network.state_dict(), file)."
        ) from error
    for wrapper in STATE_DICT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    state = (
        {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not state:
        raise ConfigurationError(f"{key}={path}: there is no state dict in it")
    return state


def _match_state_dict(
    state: State, network: nn.Module, *, source: str, class_layers: Collection[str]
) -> tuple[State, list[str]]:
    """The tensors to load under the network's own keys, and the keys without a place."""
    own = network.state_dict()
    state = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}
    prefix = max(PREFIXES, key=lambda prefix: sum(prefix + key in state for key in own))
    state = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }

    name, first = first_convolution(network)
    key = f"{name}.weight"
    if key in state and state[key].ndim == 4 and state[key].shape[2:] == first.weight.shape[2:]:
        state[key] = adapt_input_kernel(state[key], first.in_channels)

    fitted = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    left_over = [k for k in state if k not in own]
    misfits = [k for k in state if k in own and k not in fitted and k not in class_layers]
    missing = [
        k
        for k in own
        if k not in state and k not in class_layers and not k.endswith("num_batches_tracked")
    ]
    # An auxiliary classifier that is switched off leaves None in its place.
    strangers = [k for k in left_over if getattr(network, k.split(".")[0], network) is not None]
    if misfits or missing or strangers:
        raise ConfigurationError(
            _mismatch_message(
                source, state, network, misfits=misfits, missing=missing, strangers=strangers
            )
        )
    return fitted, sorted({k.split(".")[0] for k in left_over})


def _mismatch_message(
    source: str,
    state: State,
    network: nn.Module,
    *,
    misfits: list[str],
    missing: list[str],
    strangers: list[str],
) -> str:
    own = network.state_dict()
    lines = [f"{source} does not fit the network (only the layer of the classes may differ):"]
    if misfits:
        lines.append(
            "  other shapes: "
            + summarize_names(
                [f"{k} {_shape(state[k])} for {_shape(own[k])}" for k in misfits], MAX_LISTED
            )
        )
    if missing:
        lines.append("  not in the file: " + summarize_names(missing, MAX_LISTED))
    if strangers:
        lines.append("  not in the network: " + summarize_names(strangers, MAX_LISTED))
    if misfits == [f"{first_convolution(network)[0]}.weight"] and not missing and not strangers:
        lines.append(
            "The first convolution was made smaller for small pictures: type model.stem=imagenet."
        )
    return "\n".join(lines)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
