#!/usr/bin/env python3
"""Times `spinectl predict` a study, by its ways of predicting: the studies of a folder in turn, a few of them and then more.

    python3 tests/python/bench_predict.py --spinectl target/release/spinectl --run demo/run --images demo/heldout/train_images

What more studies take beyond the few, divided by their number, is a study's time: loading the models is not in it. Let the machine be quiet.
"""

import argparse
import itertools
import os
import pathlib
import resource
import subprocess
import tempfile
import time

WAYS = {"plain": [], "--flip": ["--flip"], "--details": ["--details", "details"], "both": ["--flip", "--details", "details"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--spinectl", type=pathlib.Path, required=True)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="a finished run")
    parser.add_argument("--images", type=pathlib.Path, required=True, help="the folder with the studies")
    parser.add_argument("--few", type=int, default=2)
    parser.add_argument("--more", type=int, default=22)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--of", type=int, default=2019, help="studies to tell the time of")
    arguments = parser.parse_args()
    spinectl, run = arguments.spinectl.resolve(), arguments.run.resolve()
    studies = sorted(path.resolve() for path in arguments.images.iterdir())

    def seconds(folder, count, way):
        images = folder / f"images-{count}"
        images.mkdir(exist_ok=True)
        # Under names of their own, since one study may be there several times.
        for number, study in enumerate(itertools.islice(itertools.cycle(studies), count)):
            link = images / f"s{number}{''.join(study.suffixes) if study.is_file() else ''}"
            if not link.exists():
                link.symlink_to(study)
        command = [spinectl, "predict", run, "--images", images, "--out", "out.csv", "--device", arguments.device, "--quiet", *WAYS[way]]
        began = time.monotonic()
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if ended.returncode != 0:
            raise SystemExit(ended.stderr)
        return time.monotonic() - began

    print(f"load {os.getloadavg()[0]:.2f}; {arguments.few} and {arguments.more} studies")
    print(f"| | start, s | a study, s | {arguments.of:,} studies, h |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        seconds(folder, arguments.few, "plain")  # files into the page cache
        for way in WAYS:
            few, more = (seconds(folder, count, way) for count in (arguments.few, arguments.more))
            study = (more - few) / (arguments.more - arguments.few)
            start = few - arguments.few * study
            print(f"| {way} | {start:.1f} | {study:.2f} | {(start + arguments.of * study) / 3600:.2f} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest process: {peak:.0f} MB")


if __name__ == "__main__":
    main()
