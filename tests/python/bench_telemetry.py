"""What telemetry takes from a training: one job with it off, on, and beside collectors that are ill.

    python bench_telemetry.py --spinectl PROGRAM [--rounds 2] [--jobs slow fast] [--cases off off-again ...]

Each case is a launch of the demo's recipe (configs/demo.yaml, batches and images as they stand there) on two ranks, which has one job
left to train: `slow` is stage 2, whose updates are like those of the other stages of images; `fast` is stage 3, whose updates on
stored features are the shortest of the demo, so that most events come in a second. Those before it are trained once, for an epoch.

Cases take turns, each round begins with another one. `off` writes no TensorBoard files either: a file stands where their folder would
be. Those with OTLP write them, and have Prometheus' endpoint read each second. Collectors run only where a core is idle, as theirs
would be another machine. In the cases `killed` and `stopped` that happens to the collector after half of the updates.

Prints tables in Markdown: wall times of updates but the first 20 of a job, and their ratios to `off`; time on a core of the launcher's
process in an update, beyond that of `off` all that telemetry can take from ranks, which know nothing of it; what was dropped. Fails
where an update's loss or gradient differs between two cases, or where a collector that is well did not get what it should.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bench_step import wait_until_quiet

ROOT = Path(__file__).parents[2]
# The first updates map memory and warm caches.
WARM_UP = 20
PATIENCE = 300

SETTINGS = ["tensorboard.pictures=0", "checkpoint.every=1000000", "stage1a.training.epochs=1", "stage1b.training.epochs=1"]


@dataclass
class Case:
    words: str
    protocol: str | None = None
    # take, refuse, hang: the receiver's; dead: nobody listens.
    collector: str | None = None
    every: bool = False
    at_half: signal.Signals | None = None
    tensorboard: bool = True
    prometheus: bool = True


CASES = {
    "off": Case("off, no TensorBoard files", tensorboard=False, prometheus=False),
    "off-again": Case("the same again", tensorboard=False, prometheus=False),
    "board": Case("TensorBoard alone", prometheus=False),
    "sampled": Case("gRPC, one update in 50", "grpc", "take"),
    "grpc": Case("gRPC, every update", "grpc", "take", every=True),
    "http": Case("HTTP, every update", "http", "take", every=True),
    "dead": Case("nobody listens", "grpc", "dead", every=True),
    "killed": Case("killed at half", "grpc", "take", every=True, at_half=signal.SIGKILL),
    "hangs": Case("takes connections, never answers", "grpc", "hang", every=True),
    "stopped": Case("stopped (SIGSTOP) at half", "grpc", "take", every=True, at_half=signal.SIGSTOP),
    "unavailable": Case("answers UNAVAILABLE", "grpc", "refuse", every=True),
    "503": Case("answers 503", "http", "refuse", every=True),
}


@dataclass
class Job:
    """Stages that are trained before, and with it; its name's beginning; how many updates it has; in which cases it is measured."""

    before: str
    stages: str
    prefix: str
    settings: list
    updates: int
    cases: list


JOBS = {
    "slow": Job("1a,1b", "1a,1b,2", "stage2-", ["stage2.training.epochs=3"], 51, ["off", "grpc", "hangs"]),
    "fast": Job("1a,1b,2", "1a,1b,2,3", "stage3-", ["stage2.training.epochs=1", "stage3.training.epochs=75", "stage3.training.evaluate_every=1000"],
                300, list(CASES)),
}


class Collector:
    """The receiver of the tests, with what it got; or a port at which nobody listens."""

    def __init__(self, case, folder):
        self.got = folder / "collector.jsonl"
        self.child = None
        if case.collector == "dead":
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.port = listener.getsockname()[1]
            return
        script = Path(__file__).with_name("otlp_receiver.py")
        idle = lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        with open(self.got, "w") as out:
            command = [sys.executable, script, case.protocol, case.collector]
            self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, preexec_fn=idle)
        end = time.time() + PATIENCE
        while not (text := self.got.read_text()).endswith("\n"):
            if time.time() > end or self.child.poll() is not None:
                sys.exit("the collector does not start")
            time.sleep(0.05)
        self.port = int(text)

    def spans(self):
        """Names of the spans that it has."""
        for line in self.got.read_text().splitlines()[1:]:
            for resource in json.loads(line)["message"].get("resourceSpans", []):
                yield from (span["name"] for scope in resource["scopeSpans"] for span in scope["spans"])

    def end(self):
        if self.child:
            self.child.kill()
            self.child.wait()


def cpu_by_thread(pid):
    """Nanoseconds on a core of each thread."""
    times = {}
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            times[task.parent.name] = int(task.read_text().split()[0])
        except (OSError, IndexError):
            continue
    return times


def launch(spinectl, folder, run, stages, settings, environment=None, log=subprocess.DEVNULL):
    sets = [f"data.root={folder / 'phantom'}", f"data.cache.dir={folder / 'cache'}", *SETTINGS, *settings]
    command = [spinectl, "launch", ROOT / "configs/demo.yaml", "--device=cpu", "--ranks=2", f"--stages={stages}", "--folds=0",
               f"--run-dir={run}", *(f"--set={text}" for text in sets)]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env={**inherited, **(environment or {})})


class Watch:
    """A launch that goes on with a run, looked at ten times a second until it ends."""

    def __init__(self, child, run, log, prefix):
        self.child, self.log, self.prefix = child, log, prefix
        self.events, self.rest = open(run / "events.jsonl"), ""
        # What the jobs before have told.
        self.events.seek(0, os.SEEK_END)
        self.steps, self.cpu, self.marks = [], {}, []
        self.scrapes, self.next_scrape, self.began = 0, time.time() + 1, time.time()

    def to_its_end(self, half, at_half):
        while self.child.poll() is None:
            if time.time() - self.began > PATIENCE:
                self.child.kill()
                sys.exit(f"a launch takes more than {PATIENCE} s:\n{self.log.read_text()}")
            self.look()
            if at_half and len(self.steps) >= half:
                at_half()
                at_half = None
            time.sleep(0.1)
        self.seconds = time.time() - self.began
        self.read()
        # Spans and log records.
        dropped = re.search(r"(\d+) spans and (\d+) log records were dropped", self.log.read_text())
        self.dropped = dropped.groups() if dropped else ("0", "0")
        if self.child.returncode or at_half:
            sys.exit(f"a launch ended with {self.child.returncode} after {len(self.steps)} updates:\n{self.log.read_text()}")

    def look(self):
        self.read()
        self.cpu.update(cpu_by_thread(self.child.pid))
        if len(self.steps) >= WARM_UP:
            self.marks.append((len(self.steps), sum(self.cpu.values())))
        if time.time() >= self.next_scrape:
            self.next_scrape += 1
            self.scrape()

    def read(self):
        *lines, self.rest = (self.rest + self.events.read()).split("\n")
        events = (json.loads(line) for line in lines if '"event":"step"' in line)
        self.steps += [event for event in events if event["job"].startswith(self.prefix)]

    def scrape(self):
        if address := re.search(r"http://\S+/metrics", self.log.read_text()):
            try:
                with urllib.request.urlopen(address[0], timeout=5) as answer:
                    self.scrapes += b"spinectl_run_jobs" in answer.read()
            except OSError:
                # The endpoint ends with the run, a moment before the launch.
                pass

    def cpu_an_update(self):
        """Seconds on a core of the launcher's process, while updates are done."""
        marks = [mark for mark in self.marks if mark[0] < len(self.steps)]
        (first, before), (last, after) = marks[0], marks[-1]
        return (after - before) / 1e9 / (last - first)


def copy(base, run):
    """Weights are shared: nobody writes to them."""
    link = lambda source, target: os.link(source, target) if source.endswith(".safetensors") else shutil.copy2(source, target)
    shutil.copytree(base, run, copy_function=link, ignore=shutil.ignore_patterns("tensorboard"))


def measure(spinectl, folder, job, name):
    """One launch of a case."""
    case, run, log = CASES[name], folder / "run", folder / "launch.log"
    shutil.rmtree(run, ignore_errors=True)
    copy(folder / f"before-{job.prefix}", run)
    if not case.tensorboard:
        (run / "tensorboard").write_text("no folder: nothing is written for TensorBoard\n")
    collector = Collector(case, folder) if case.collector else None
    environment = {}
    if collector:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.port}"
        environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = {"grpc": "grpc", "http": "http/protobuf"}[case.protocol]
        environment["OTEL_TRACES_SAMPLER"] = "always_on" if case.every else ""
    try:
        with open(log, "w") as out:
            settings = [*job.settings, *(["telemetry.metrics_port=0"] if case.prometheus else [])]
            child = launch(spinectl, folder, run, job.stages, settings, environment, out)
        watch = Watch(child, run, log, job.prefix)
        at_half = case.at_half and (lambda: collector.child.send_signal(case.at_half))
        watch.to_its_end(job.updates // 2, at_half)
        if case.collector == "take" and not case.at_half:
            got = list(collector.spans())
            wanted = len(watch.steps) if case.every else len(watch.steps) // 50
            if got.count("step") < wanted or got.count("launch") != 1:
                sys.exit(f"{name}: the collector has {got.count('step')} updates and {got.count('launch')} launches")
    finally:
        if collector:
            collector.end()
    if (watch.scrapes > 0) != case.prometheus:
        sys.exit(f"{name}: metrics were read {watch.scrapes} times")
    return watch


def prepare(spinectl, folder, names):
    """Trains what comes before these jobs, each from where the one before ended."""
    earlier = None
    for job in (JOBS[name] for name in names):
        run = folder / f"before-{job.prefix}"
        if earlier:
            copy(earlier, run)
        if code := launch(spinectl, folder, run, job.before, job.settings).wait():
            sys.exit(f"the jobs before {job.prefix} ended with {code}")
        earlier = run


def numbers(watch):
    """What training came to, update by update."""
    return [(step["step"], step["loss"], step["gradient_norm"]) for step in watch.steps]


def table(watches):
    """Lines of Markdown; `watches` by case."""
    seconds = {name: [step["seconds"] for watch in of for step in watch.steps[WARM_UP:]] for name, of in watches.items()}
    cpu = {name: statistics.median(watch.cpu_an_update() for watch in of) for name, of in watches.items()}
    ninth = lambda values: statistics.quantiles(values, n=10)[-1]
    base = "off" if "off" in watches else next(iter(watches))
    update, high = statistics.median(seconds[base]), ninth(seconds[base])
    yield ("| telemetry; updates traced, collector | an update, median, ms | to off | 90 % within, ms | to off "
           "| launcher's time on a core, ms an update | beyond off, of an update | dropped spans, log records | launch, s |")
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, of in watches.items():
        own = statistics.median(seconds[name])
        cells = [CASES[name].words, f"{own * 1e3:.2f}", f"{own / update:.3f}", f"{ninth(seconds[name]) * 1e3:.2f}", f"{ninth(seconds[name]) / high:.3f}",
                 f"{cpu[name] * 1e3:.3f}", f"{(cpu[name] - cpu[base]) / update:.2%}",
                 "; ".join(", ".join(watch.dropped) for watch in of) if CASES[name].collector else "",
                 f"{statistics.median(watch.seconds for watch in of):.1f}"]
        yield f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spinectl", required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quiet", type=float, default=60, help="seconds to wait at most for other processes to rest")
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), choices=JOBS)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=CASES)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synth = [arguments.spinectl, "data", "synth", "--studies", "64", "--slices", "32", "--size", "96", "--seed", "7"]
        subprocess.run([*synth, "--out", folder / "phantom"], check=True, stdout=subprocess.DEVNULL)
        names = [name for name in JOBS if name in arguments.jobs]
        prepare(arguments.spinectl, folder, names)
        print("prepared", file=sys.stderr)
        for name in names:
            job = JOBS[name]
            cases = [case for case in job.cases if case in arguments.cases]
            watches = {case: [] for case in cases}
            for number in range(arguments.rounds):
                turn = number * len(cases) // arguments.rounds
                for case in cases[turn:] + cases[:turn]:
                    load = wait_until_quiet(arguments.quiet)
                    watch = measure(arguments.spinectl, folder, job, case)
                    print(f"{name} {case}: {len(watch.steps)} updates, others used {load:.2f} cores before", file=sys.stderr)
                    watches[case].append(watch)
            courses = [numbers(watch) for of in watches.values() for watch in of]
            if any(course != courses[0] for course in courses):
                sys.exit(f"{name}: the training did not come to the same everywhere")
            print(f"\n{name}: {len(courses[0])} updates, last loss {courses[0][-1][1]}\n")
            print("\n".join(table(watches)), flush=True)


if __name__ == "__main__":
    main()
