"""TensorBoard's event files: curves, charts with bands, and rows of the HPARAMS page.

TensorBoard shows as columns of HPARAMS all settings and all metrics of a session and the folders in
it. A session therefore has a folder of its own with nothing but its results. (Torch's and
Lightning's functions list the columns in each run instead, of which TensorBoard uses one, so that
runs with other metrics are blank.) Does not import torch.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from vision_lab.core.files import delete_file

HPARAMS_FOLDER = "hparams"
"""Folder, in that of a run, of its row on the HPARAMS page."""

RESULTS_PREFIX = "with best checkpoint"
"""First part of the names of results, by which they are the last cards of TIME SERIES."""

Status = Literal["finished", "failed"]


class EventFile:
    """A new event file.

    Args:
        folder: folder of the file; earlier event files in it are deleted.
    """

    def __init__(self, folder: Path) -> None:
        for path in sorted(folder.glob("events.out.tfevents.*")):
            delete_file(folder, path.name)
        self.writer = EventFileWriter(str(folder))

    def add_scalars(
        self,
        values: Mapping[str, float],
        *,
        step: int,
    ) -> None:
        """Add a point to each curve.

        Args:
            values: the values by tag.
            step: the step, for all.
        """
        for tag, value in values.items():
            self._add(Summary.Value(tag=tag, simple_value=value), step)

    def start_session(self, settings: Mapping[str, str | float | bool]) -> None:
        """Add a row to the HPARAMS page, whose metrics are the scalars of this file.

        Args:
            settings: the settings by name.
        """
        info = SessionStartInfo(start_time_secs=time.time())
        for name, value in settings.items():
            if isinstance(value, bool):
                info.hparams[name].bool_value = value
            elif isinstance(value, int | float):
                info.hparams[name].number_value = value
            else:
                info.hparams[name].string_value = value
        content = HParamsPluginData(session_start_info=info, version=metadata.PLUGIN_DATA_VERSION)
        self._add_metadata(metadata.SESSION_START_INFO_TAG, metadata.PLUGIN_NAME, content)

    def end_session(self, status: Status) -> None:
        """Complete the row.

        Args:
            status: how the run has ended.
        """
        code = api_pb2.STATUS_SUCCESS if status == "finished" else api_pb2.STATUS_FAILURE
        info = SessionEndInfo(status=code, end_time_secs=time.time())
        content = HParamsPluginData(session_end_info=info, version=metadata.PLUGIN_DATA_VERSION)
        self._add_metadata(metadata.SESSION_END_INFO_TAG, metadata.PLUGIN_NAME, content)

    def add_band_charts(self, title: str, bands: Mapping[str, tuple[str, str, str]]) -> None:
        """Add charts of curves with bands to the CUSTOM SCALARS page.

        Args:
            title: heading of the charts.
            bands: the tags of the curve, of the lower and of the upper end, by title of the chart.
        """
        charts = []
        for name, (value, lower, upper) in bands.items():
            series = layout_pb2.MarginChartContent.Series(value=value, lower=lower, upper=upper)
            margin = layout_pb2.MarginChartContent(series=[series])
            charts.append(layout_pb2.Chart(title=name, margin=margin))
        category = layout_pb2.Category(title=title, chart=charts)
        layout = layout_pb2.Layout(category=[category]).SerializeToString()
        plugin = SummaryMetadata.PluginData(plugin_name=custom_scalar.PLUGIN_NAME)
        tensor = TensorProto(
            dtype="DT_STRING",
            string_val=[layout],
            tensor_shape=TensorShapeProto(),
        )
        value = Summary.Value(
            tag=custom_scalar.CONFIG_SUMMARY_TAG,
            tensor=tensor,
            metadata=SummaryMetadata(plugin_data=plugin),
        )
        self._add(value, step=0)

    def flush(self) -> None:
        """Write everything to the disk."""
        self.writer.flush()

    def close(self) -> None:
        """Write the file to the disk and close it."""
        self.writer.close()

    def _add_metadata(self, tag: str, plugin: str, content: Any) -> None:
        data = SummaryMetadata.PluginData(
            plugin_name=plugin,
            content=content.SerializeToString(),
        )
        empty = TensorProto(
            dtype="DT_FLOAT",
            float_val=[0.0],
            tensor_shape=TensorShapeProto(),
        )
        described = SummaryMetadata(plugin_data=data)
        self._add(Summary.Value(tag=tag, tensor=empty, metadata=described), step=0)

    def _add(self, value: Any, step: int) -> None:
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=[value]))
        self.writer.add_event(event)


def name_results(metrics: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """Select the metrics that exist, and prefix their names as those of results.

    Args:
        metrics: metrics by name.
        names: the names.
    """
    return {f"{RESULTS_PREFIX}/{name}": metrics[name] for name in names if name in metrics}
