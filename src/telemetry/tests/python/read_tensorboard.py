"""Prints, as JSON, what TensorBoard itself reads from a directory of event files.

`scalars` and `texts` are {tag: [[step, value, wall time], ...]}; `accumulated` holds the scalars as the older
EventAccumulator sees them; `images` are [step, [width, height], description, sizes as the PNG itself has them];
`pr_curves` and `histograms` are tensors as lists; `hparams` and `layout` are what the plugins' own messages say;
`files` the names in the order in which they are read; `versions` the first record of each.
"""

import json
import os
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator as ServerAccumulator,
)
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.pr_curve import metadata as pr_metadata
from tensorboard.util import tensor_util
from google.protobuf.json_format import MessageToDict

ALL = {"tensors": 0, "scalars": 0}

directory = sys.argv[1]

# What the TensorBoard server holds: every summary is a tensor that belongs to a plugin.
server = ServerAccumulator(directory, size_guidance=ALL)
server.Reload()


def of_plugin(plugin, value_of):
    series = {}
    try:
        tags = server.PluginTagToContent(plugin)
    except KeyError:
        return series
    for tag in tags:
        series[tag] = [[e.step, value_of(e.tensor_proto), e.wall_time] for e in server.Tensors(tag)]
    return series


def description(tag):
    return server.SummaryMetadata(tag).summary_description


def image_of(tag, step, tensor):
    width, height, png = tensor_util.make_ndarray(tensor)
    return [step, [int(width), int(height)], description(tag), list(struct.unpack(">II", png[16:24]))]


def images():
    try:
        tags = server.PluginTagToContent("images")
    except KeyError:
        return {}
    return {tag: [image_of(tag, e.step, e.tensor_proto) for e in server.Tensors(tag)] for tag in tags}


def thresholds():
    try:
        tags = server.PluginTagToContent("pr_curves")
    except KeyError:
        return {}
    return {tag: pr_metadata.parse_plugin_metadata(content).num_thresholds for tag, content in tags.items()}


def hparams():
    try:
        tags = server.PluginTagToContent("hparams")
    except KeyError:
        return {}
    start = tags.get(hparams_metadata.SESSION_START_INFO_TAG)
    end = tags.get(hparams_metadata.SESSION_END_INFO_TAG)
    return {
        "start": start and MessageToDict(hparams_metadata.parse_session_start_info_plugin_data(start)),
        "end": end and MessageToDict(hparams_metadata.parse_session_end_info_plugin_data(end)),
    }


def layout():
    try:
        (tag,) = server.PluginTagToContent("custom_scalars")
    except KeyError:
        return None
    message = layout_pb2.Layout()
    message.ParseFromString(tensor_util.make_ndarray(server.Tensors(tag)[-1].tensor_proto).item())
    return MessageToDict(message)


def as_list(tensor):
    return tensor_util.make_ndarray(tensor).tolist()


accumulator = EventAccumulator(directory, size_guidance=ALL)
accumulator.Reload()

files = sorted(f for f in os.listdir(directory) if "tfevents" in f)
print(
    json.dumps(
        {
            "scalars": of_plugin("scalars", lambda t: tensor_util.make_ndarray(t).item()),
            "texts": of_plugin("text", lambda t: tensor_util.make_ndarray(t)[0].decode()),
            "accumulated": {
                tag: [[e.step, e.value, e.wall_time] for e in accumulator.Scalars(tag)]
                for tag in accumulator.Tags()["scalars"]
            },
            "images": images(),
            "pr_curves": of_plugin("pr_curves", as_list),
            "thresholds": thresholds(),
            "histograms": of_plugin("histograms", as_list),
            "hparams": hparams(),
            "layout": layout(),
            "files": files,
            "versions": [
                next(iter(EventFileLoader(os.path.join(directory, f)).Load())).file_version
                for f in files
            ],
        }
    )
)
