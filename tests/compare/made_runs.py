"""Run folders with known metrics, without training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CONFIG = {
    "model": {"_target_": "x", "network": {"depth": 8}},
    "optimizer": {"lr": 0.1},
    "task": {"monitor": "val/accuracy", "monitor_mode": "max"},
    "data": {"root": None, "batch_size": 8},
    "seed": 0,
    "name": None,
}


def make_run(
    folder: Path,
    *,
    score: float,
    state: str = "finished",
    choices: Mapping[str, str] = {},
    config: Mapping[str, Any] = {},
    **result: Any,
) -> Path:
    """Write the files of a run; ``config`` has values by dotted key."""
    folder.mkdir(parents=True)
    values = json.loads(json.dumps(CONFIG))
    for key, value in config.items():
        *parents, last = key.split(".")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    status = {"state": state, "error": "it failed"} if state == "failed" else {"state": state}
    (folder / "status.json").write_text(json.dumps(status))
    for name in ("config.yaml", "config_resolved.yaml"):
        (folder / name).write_text(yaml.safe_dump(values))
    chosen = {"task": "classify", "model": "resnet18", **choices}
    (folder / "overrides.yaml").write_text(yaml.safe_dump({"overrides": [], "choices": chosen}))
    content = {
        "metrics": {"test/accuracy": score - 0.01, "test/loss": 1 - score},
        "per_class": {"cat": {"accuracy": score}},
        "monitored": {"val/accuracy": score},
        "measured_with": {},
        "seconds": 10.0,
        "parameters": 1000,
        "flops": 5000,
    }
    if state == "finished":
        (folder / "result.json").write_text(json.dumps(content | result))
    data = {"test": {"count": 10, "labels": "a"}, "val": {"count": 5, "labels": "b"}}
    (folder / "data_fingerprint.json").write_text(json.dumps(data))
    return folder
