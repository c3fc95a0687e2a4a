#!/usr/bin/env python3
"""Times `spinectl evaluate` on a run of any size, made of a small finished one: each study many times, and each of its slices.

    python3 tests/python/bench_evaluate.py --spinectl target/release/spinectl --run demo/run --data demo/phantom --studies 2019 --slices 300

The tables are a real run's, only longer. Ledgers are left out, as they would no longer match; reading those is not timed.
"""

import argparse
import csv
import pathlib
import resource
import shutil
import subprocess
import tempfile
import time


def longer(source, target, studies, slices):
    """Writes a table with each study `studies` times under names of its own, and each slice `slices` times."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open(newline="") as read, target.open("w", newline="") as written:
        rows = csv.reader(read)
        out = csv.writer(written, lineterminator="\n")
        header = next(rows)
        out.writerow(header)
        numbered = header.index("slice_number") if "slice_number" in header else None
        kept = list(rows)
        for copy in range(studies):
            for row in kept:
                # `<study>`, or `<study>_<label>` in predictions.csv.
                study, label = (row[0].split("_", 1) + [None])[:2]
                name = f"{study}.{copy + 1}" + (f"_{label}" if label else "")
                if numbered is None:
                    out.writerow([name, *row[1:]])
                    continue
                first = (int(row[numbered]) - 1) * slices
                for number in range(slices):
                    out.writerow([name, *row[1:numbered], first + number + 1, *row[numbered + 1 :]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--spinectl", type=pathlib.Path, required=True)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="a finished run")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="its data set")
    parser.add_argument("--studies", type=int, default=2019)
    parser.add_argument("--slices", type=int, default=300, help="of a study, about")
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()

    with (arguments.run / "tables/slice_labels.csv").open() as table:
        slices = sum(1 for _ in table) - 1
    with (arguments.run / "tables/folds.csv").open() as table:
        studies = sum(1 for _ in table) - 1
    times = -(-arguments.studies // studies), -(-arguments.slices * studies // slices)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        run, data = folder / "run", folder / "data"
        run.mkdir()
        for name in ["plan.json", "recipe.yaml", "run.db", "run.db-wal"]:
            if (arguments.run / name).is_file():
                shutil.copy(arguments.run / name, run / name)
        for table in arguments.run.rglob("*.csv"):
            longer(table, run / table.relative_to(arguments.run), *times)
        longer(arguments.data / "train.csv", data / "train.csv", *times)
        bytes_ = sum(file.stat().st_size for file in run.rglob("*.csv"))
        command = [arguments.spinectl, "evaluate", run, "--data", data, "--resamples", str(arguments.resamples)]
        began = time.monotonic()
        ended = subprocess.run(command, capture_output=True, text=True)
        seconds = time.monotonic() - began
        if ended.returncode != 0:
            raise SystemExit(ended.stderr)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        page = (run / "evaluation/report.html").stat().st_size
    print(f"{studies * times[0]} studies, {slices * times[0] * times[1]} slices, tables of {bytes_ / 1e6:.0f} MB")
    print(f"{seconds:.1f} s, {peak:.0f} MB at its peak, a page of {page / 1e3:.0f} kB; {arguments.resamples} draws")


if __name__ == "__main__":
    main()
