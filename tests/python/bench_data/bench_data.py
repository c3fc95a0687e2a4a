"""Samples of stage 2 from disk to the normalised, augmented tensor (32, 3, 512, 512): spinectl's data room against the Python peer.

    python bench_data.py --ours PROGRAM --peer DIR [--rounds 2] [--batches 32] [--workers 2]

DIR holds the peer: gen_studies.py, bench_data.py (pydicom, torch, albumentations). Both sides read the same windows of the same
files in the same order, with the same mix of distortions (none, none, grid, elastic of every four). Sides take turns, each run is a
process of its own. Data, and the peer's packages, are made once and kept in the cache folder.

Prints a table in Markdown: medians over the rounds of samples/s and CPU-seconds a sample, the largest peak of memory, ratios.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench_step import wait_until_quiet  # noqa: E402

HERE = Path(__file__).parent
WINDOW, GRID = 96, 12
BRANCHES = ["none", "none", "grid", "elastic"]
PEERS = ["albumentations-1.2.1", "albumentations-2.0.8"]
MODES = {"spinectl, from DICOM": "dicom", "spinectl, from the cache": "cache"}


def cache_folder():
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "spinectl" / "bench-data"


def packages(cache):
    """The search paths of each peer; installs what is missing."""
    paths = {}
    for peer in PEERS:
        folder, requirements = cache / peer, HERE / f"{peer}.txt"
        marker = folder / requirements.name
        if not marker.exists() or marker.read_text() != requirements.read_text():
            print(f"installing {peer} into {folder}", file=sys.stderr)
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(folder), "-r", str(requirements)]
            subprocess.run(command + (["--no-deps"] if peer != PEERS[0] else []), check=True)
            marker.write_text(requirements.read_text())
        paths[peer] = [folder]
    paths[PEERS[1]].append(cache / PEERS[0])
    return {peer: [*map(str, folders), sysconfig.get_paths()["purelib"]] for peer, folders in paths.items()}


def studies(cache, peer, path, count, slices):
    """The peer's own data set; made once."""
    folder = cache / f"studies-{count}x{slices}"
    if not (folder / "slices.csv").exists():
        print(f"making {count} studies of about {slices} slices in {folder}", file=sys.stderr)
        command = [sys.executable, str(peer / "gen_studies.py"), str(folder), "--studies", str(count), "--slices", str(slices), "--jitter", "0.3"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(path)}, stdout=subprocess.DEVNULL)
    return folder


def windows(folder, total, seed):
    """(study, first slice number, distortion) of each sample, as the peer's loader draws them under `--distort strat`."""
    import numpy as np

    numbers = {}
    with open(folder / "slices.csv", newline="") as file:
        for row in csv.DictReader(file):
            numbers.setdefault(row["StudyInstanceUID"], []).append(int(row["slice_number"]))
    items = []
    for study, of in numbers.items():
        last = max(of) - (WINDOW + 1)
        items += [(study, min(n, last)) for n in of if (n % GRID == 0 and n <= last) or n in (last, 1)]
    order = np.resize(np.random.default_rng(seed).permutation(len(items)), total)
    rng = np.random.default_rng(seed + 1)
    branches = np.concatenate([rng.permutation(4) for _ in range(-(-total // 4))])[:total]
    return [(*items[item], BRANCHES[branch]) for item, branch in zip(order, branches)]


def run(command, environment):
    done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def peer_command(arguments, folder):
    return [sys.executable, str(arguments.peer / "bench_data.py"), "loader", str(folder), "--workers", str(arguments.workers),
            "--batch", "1", "--batches", str(arguments.batches), "--distort", "strat", "--seed", "0"]


def table(rows, floor):
    """Lines of Markdown."""
    def of(side, key):
        return statistics.median(run[key] for run in rows[side])

    peak = {side: max(run["peak_rss_mb"] for run in runs) for side, runs in rows.items()}
    shared = {side: max(run["peak_pss_mb"] for run in runs) for side, runs in rows.items()}
    heads = ["", "samples/s", "CPU-s a sample", "peak memory (RSS, all processes)", "PSS"]
    lines = ["| " + " | ".join(heads + [f"x {peer}" for peer in PEERS] + ["memory / peer's"]) + " |", "|" + "---|" * (len(heads) + len(PEERS) + 1)]
    for side in rows:
        rate = of(side, "samples_per_s")
        cells = [side, f"{rate:.2f}", f"{of(side, 'cpu_s_per_sample'):.3f}", f"{peak[side]:.0f} MB", f"{shared[side]:.0f} MB"]
        cells += [f"{rate / of(peer, 'samples_per_s'):.1f}" for peer in PEERS]
        # Against the peer's lowest figure: what its processes share is counted once.
        cells += [f"{peak[side] / min(shared[peer] for peer in PEERS):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for side, mode in MODES.items():
        bytes_moved = floor[f"{mode}_bytes"]
        seconds = bytes_moved / floor["bytes_per_s"]
        cpu = of(side, "cpu_s_per_sample")
        lines.append(f"Floor {mode}: {bytes_moved / 1e6:.0f} MB a sample at {floor['bytes_per_s'] / 1e9:.1f} GB/s a core = "
                     f"{seconds:.4f} s; {side} takes {cpu / seconds:.1f} times that.")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=Path, required=True, help="the example data_throughput of spinectl-data")
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batches", type=int, default=32)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--studies", type=int, default=10)
    parser.add_argument("--slices", type=int, default=180)
    parser.add_argument("--quiet", type=float, default=60, help="seconds to wait at most for other processes to fall still")
    arguments = parser.parse_args()
    if not (arguments.peer / "ref_dataset.py").exists():
        sys.exit(f"{arguments.peer} does not hold the peer (ref_dataset.py, bench_data.py, gen_studies.py): name its folder, make bench-data PEER=DIR")
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    paths = packages(cache)
    folder = studies(cache, arguments.peer, paths[PEERS[0]], arguments.studies, arguments.slices)
    # The first sample of a run is its start-up and does not count, as on the peer's side.
    drawn = windows(folder, arguments.batches + 1, seed=0)
    listed = cache / "windows.csv"
    with open(listed, "w", newline="") as file:
        csv.writer(file).writerows([("study", "first", "distortion"), *drawn])
    disk = cache / "stacks"
    ours = [str(arguments.ours), str(folder), str(listed), str(disk), "--threads", str(arguments.workers), "--mode"]
    # Builds the cache, so that the runs find it warm.
    run([*ours, "cache"], {})
    rows, floor = {}, {}
    for _ in range(arguments.rounds):
        sides = {peer: (peer_command(arguments, folder), {"PYTHONPATH": os.pathsep.join(paths[peer])}) for peer in PEERS}
        sides |= {side: ([*ours, mode], {}) for side, mode in MODES.items()}
        for side, (command, environment) in sides.items():
            load = wait_until_quiet(arguments.quiet)
            result = run(command, environment)
            print(f"{side}: {result['samples_per_s']:.2f} samples/s; others used {load:.2f} cores before", file=sys.stderr)
            rows.setdefault(side, []).append(result)
            floor |= result.get("floor", {})
    print("\n".join(table(rows, floor)))


if __name__ == "__main__":
    main()
