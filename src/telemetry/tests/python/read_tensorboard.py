"""Prints, as JSON, what TensorBoard itself reads from a directory of event files.

`scalars` and `texts` are {tag: [[step, value, wall time], ...]}; `accumulated` holds the scalars as the older
EventAccumulator sees them; `files` the names in the order in which they are read; `versions` the first record of each.
"""

import json
import os
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator as ServerAccumulator,
)
from tensorboard.util import tensor_util

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


accumulator = EventAccumulator(directory, size_guidance=ALL)
accumulator.Reload()

files = sorted(os.listdir(directory))
print(
    json.dumps(
        {
            "scalars": of_plugin("scalars", lambda t: tensor_util.make_ndarray(t).item()),
            "texts": of_plugin("text", lambda t: tensor_util.make_ndarray(t)[0].decode()),
            "accumulated": {
                tag: [[e.step, e.value, e.wall_time] for e in accumulator.Scalars(tag)]
                for tag in accumulator.Tags()["scalars"]
            },
            "files": files,
            "versions": [
                next(iter(EventFileLoader(os.path.join(directory, f)).Load())).file_version
                for f in files
            ],
        }
    )
)
