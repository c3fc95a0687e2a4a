"""From the command line to the first update, and what the launcher costs: spinectl beside torchrun.

    python bench_launch.py --spinectl PROGRAM --peer DIR [--rounds 3] [--kinds launch rank restart agent hang]

DIR holds the peer: bench_ddp.py and bench_failure.py (torchrun, Gloo on loopback, timm's resnest50d). Both sides train that backbone
on 8 images of 64 px a rank, on two ranks of one thread. spinectl's time has all that its user waits for: the plan, the job that reads
the data set, decoding, the optimizer's state, the first update; the peer's batch is made of random numbers in memory.

  launch   seconds from the command to the end of the first update on every rank; peak resident memory of launcher and agent
  rank     SIGKILL of rank 1 in the midst of an update: seconds until the failure stands in the log, and until the other rank is gone
  restart  the same with a retry: seconds until the restarted ranks have done an update
  agent    SIGKILL of the launcher: seconds until the last rank is gone
  hang     SIGSTOP of rank 1: seconds until the verdict, with spinectl's stall_timeout at 5 s and torchrun's timeouts as they are

Of what does not happen the peer sees that it has not within a minute; that is waited for in the first round alone. Sides take turns. Prints a table in Markdown: medians and ranges over the rounds.
"""

import argparse
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_step import wait_until_quiet

ROOT = Path(__file__).parents[2]
PATIENCE = 180
TRAINING = {"arch": "resnest50d", "image_size": 64, "batch": 16, "micro_batch": 8, "epochs": 200}
SETTINGS = ["checkpoint.every=5", *(f"stage1a.training.{key}={value}" for key, value in TRAINING.items())]


def psutil_folder():
    """The peer's scripts want psutil, which no test does."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "spinectl" / "bench-launch"
    if not (folder / "psutil").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "psutil==7.1.3"]
        subprocess.run(command, check=True)
    return folder


class Ours:
    """A launch over a small phantom."""

    def __init__(self, spinectl, folder):
        self.spinectl = spinectl
        self.folder = Path(folder)
        self.runs = 0
        arguments = ["data", "synth", "--studies", "12", "--slices", "24", "--size", "64", "--seed", "3"]
        subprocess.run([spinectl, *arguments, "--out", self.folder / "phantom"], check=True, stdout=subprocess.DEVNULL)

    def start(self, *more):
        self.runs += 1
        self.run = self.folder / f"run{self.runs}"
        sets = [f"data.root={self.folder / 'phantom'}", f"data.cache.dir={self.folder / 'cache'}", *SETTINGS, *more]
        command = [self.spinectl, "launch", ROOT / "configs/demo.yaml", "--device=cpu", "--ranks=2", "--stages=1a",
                   f"--run-dir={self.run}", *(f"--set={text}" for text in sets)]
        self.began = time.time()
        self.child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def events(self, kind):
        try:
            lines = (self.run / "events.jsonl").read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if event["event"] == kind]

    def wait(self, kind, holds=lambda event: True):
        end = time.time() + PATIENCE
        while time.time() < end:
            for event in self.events(kind):
                if holds(event):
                    return event
            time.sleep(0.005)
        raise TimeoutError(f"no {kind} in {PATIENCE} s")

    def ranks(self):
        """Pids by rank."""
        pids = {}
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes()
                if entry.name.isdigit() and str(self.run).encode() in command and b"spinectl-rank" in command:
                    variables = dict(item.split(b"=", 1) for item in (entry / "environ").read_bytes().split(b"\0") if b"=" in item)
                    pids[int(variables[b"RANK"])] = int(entry.name)
            except OSError:
                continue
        return pids

    def peak_mb(self):
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024

    def stop(self):
        self.child.kill()
        self.child.wait()

    def launch(self):
        self.start()
        try:
            first = self.wait("step")
            trains = self.wait("job_started", lambda event: event["job"] == first["job"])
            return {
                "launch to first update, s": first["time"] - self.began,
                "of it after the data set is read, s": first["time"] - trains["time"],
                "launcher, peak MB": self.peak_mb(),
            }
        finally:
            self.stop()

    def midst_of_an_update(self):
        """The pids of the ranks, at a random moment of an update."""
        self.wait("step", lambda event: event["step"] >= 6)
        pids = self.ranks()
        time.sleep(random.uniform(0.1, 0.9) * self.events("step")[-1]["seconds"])
        return pids

    def agent(self):
        self.start()
        try:
            pids = self.midst_of_an_update()
            struck = time.time()
            self.child.kill()
            while any(Path(f"/proc/{pid}").exists() for pid in pids.values()):
                time.sleep(0.001)
            return {"launcher's death to the last rank's end, s": time.time() - struck}
        finally:
            self.stop()

    def hang(self):
        self.start("stall_timeout=5")
        try:
            pids = self.midst_of_an_update()
            struck = time.time()
            os.kill(pids[1], signal.SIGSTOP)
            verdict = self.wait("rank_failed")
            return {"stopped rank to verdict, s": verdict["time"] - struck}
        finally:
            self.stop()

    def death(self):
        """rank and restart in one: the launcher retries by itself."""
        self.start()
        try:
            pids = self.midst_of_an_update()
            struck = time.time()
            os.kill(pids[1], signal.SIGKILL)
            while Path(f"/proc/{pids[0]}").exists():
                time.sleep(0.001)
            gone = time.time() - struck
            verdict = self.wait("rank_failed", lambda event: event["time"] > struck)
            step = self.wait("step", lambda event: event["time"] > struck)
            return {
                "death to verdict, s": verdict["time"] - struck,
                "death to the other rank's end, s": gone,
                "death to next update, s": step["time"] - struck,
            }
        finally:
            self.stop()


def torchrun(peer, script, *arguments):
    """What the peer's script measures, one object a line."""
    environment = {**os.environ, "PYTHONPATH": str(psutil_folder()), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    command = [sys.executable, str(peer / script), "--rounds", "1", *arguments]
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def theirs(peer, kind):
    if kind == "launch":
        ddp = next(line for line in torchrun(peer, "bench_ddp.py", "--kinds", "ddp", "--steps", "3") if line["bench"] == "ddp")
        return {
            "launch to first update, s": ddp["launch_to_first_step_s"]["median"],
            "launcher, peak MB": ddp["agent_rss_mb"],
        }
    line = torchrun(peer, "bench_failure.py", "--kinds", kind)[0]
    if "timeout" in line:
        return {}
    gone = line.get("gone_after_s", {})
    if kind == "agent":
        ends = [gone.get(rank, math.inf) for rank in ("rank0", "rank1")]
        return {"launcher's death to the last rank's end, s": max(ends)}
    if kind == "hang":
        return {"stopped rank to verdict, s": gone.get("agent", math.inf)}
    names = {"agent_noticed_s": "death to verdict, s", "survivor_gone_s": "death to the other rank's end, s", "step_s": "death to next update, s"}
    return {name: line[key] for key, name in names.items() if key in line}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spinectl", required=True)
    parser.add_argument("--peer", required=True, type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quiet", type=float, default=60, help="seconds to wait at most for other processes to rest")
    parser.add_argument("--kinds", nargs="*", default=["launch", "rank", "restart", "agent", "hang"])
    arguments = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(arguments.spinectl, folder)
        for number in range(arguments.rounds):
            kinds = [kind for kind in arguments.kinds if number == 0 or kind not in ("agent", "hang")]
            sides = [("torchrun", lambda kind=kind: theirs(arguments.peer, kind)) for kind in kinds]
            if "launch" in arguments.kinds:
                sides.append(("spinectl", ours.launch))
            if {"rank", "restart"} & set(arguments.kinds):
                sides.append(("spinectl", ours.death))
            sides += [("spinectl", getattr(ours, kind)) for kind in ("agent", "hang") if kind in arguments.kinds]
            for side, measure in sides:
                wait_until_quiet(arguments.quiet)
                for name, value in measure().items():
                    figures.setdefault(name, {}).setdefault(side, []).append(value)
    print("| | spinectl | torchrun | ratio |\n|---|---|---|---|")
    for name, by_side in figures.items():
        cell = lambda side: "" if side not in by_side else "not in a minute" if math.inf in by_side[side] else (
            "{:.3g} ({:.3g} to {:.3g})".format(statistics.median(by_side[side]), min(by_side[side]), max(by_side[side])))
        both = [statistics.median(by_side[side]) for side in ("spinectl", "torchrun") if side in by_side]
        ratio = f"{both[0] / both[1]:.3f}" if len(both) == 2 else ""
        print(f"| {name} | {cell('spinectl')} | {cell('torchrun')} | {ratio} |")


if __name__ == "__main__":
    main()
