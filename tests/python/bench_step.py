"""Time and memory of a training step of stage 2: `spinectl model step` against PyTorch eager, interleaved.

    python bench_step.py [--spinectl PATH] [--rounds 3] [--archs resnest50d ...] [--shapes 1x8x128 ...]
    python bench_step.py --device cuda --dtypes bf16 fp16 --shapes 1x32x512

A step is the forward pass, the backward pass, and AdamW (PyTorch's with fused=True) on the same weights and batch. Each run is a
process of its own; the two programs take turns, so that whatever else the machine does hits both. Each architecture is run in both
memory layouts, and the best of each side is compared as well. A shape is BxSxSIZE: B sequences of S images. bf16 and fp16 are autocast,
fp16 with a loss scale.

Prints a table in Markdown: medians over all steps of all rounds but each run's first ones, and the peak resident memory of a process;
on a GPU the most that tensors held there.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYOUTS = ["contiguous", "channels last"]
# Steps at the start of a run that do not count: memory is mapped, kernels are chosen.
WARM_UP = 2
LEARNING_RATE, WEIGHT_DECAY = 3e-4, 5e-4
# Two runs of one weights file and batch begin with the same loss, relatively.
SAME_LOSS = {"fp32": 1e-3, "fp16": 5e-3, "bf16": 3e-2}


def stage2(arch):
    sys.path.insert(0, str(Path(__file__).parent / "parity"))
    from stages import Stage2

    return Stage2(arch)


def prepare(folder, arch, shape):
    """Writes weights, input and targets for both sides."""
    import torch

    model = stage2(arch)
    from random_weights import images, write

    b, s, size = (int(number) for number in shape.split("x"))
    torch.manual_seed(0)
    values = torch.rand(2, 1, b, s, 7)
    ratio, fracture = torch.where(values > 0.7, values, 0.0)
    write(folder / "weights.safetensors", model.state_dict())
    position = torch.linspace(0, 1, s).expand(1, b, s)
    write(folder / "input.safetensors", {"image": images(1, b, s, 3, size, size), "position": position})
    write(folder / "targets.safetensors", {"ratio": ratio, "fracture": fracture})


def run_torch(folder, arch, device, dtype, layout, steps, again):
    """The PyTorch side, in this process."""
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = stage2(arch)
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    model = model.to(device)
    model.backbone.set_grad_checkpointing(again)
    inputs, targets = ({name: tensor[0].to(device) for name, tensor in load_file(folder / f"{kind}.safetensors").items()}
                       for kind in ["input", "targets"])
    low = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    scaler = torch.amp.GradScaler(device, enabled=dtype == "fp16")

    def now():
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    if layout == "channels last":
        model = model.to(memory_format=torch.channels_last)
        image = inputs["image"]
        inputs["image"] = image.flatten(0, 1).contiguous(memory_format=torch.channels_last).view(image.shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    model.train()
    updates = []
    for _ in range(steps):
        began = now()
        optimizer.zero_grad()
        with torch.autocast(device, low, enabled=low is not None):
            loss = model.loss(model(**inputs), targets)
        value = loss.item()
        forward = now()
        scaler.scale(loss).backward()
        backward = now()
        scaler.step(optimizer)
        scaler.update()
        end = now()
        phases = {"forward": forward - began, "backward": backward - forward, "optimizer": end - backward}
        updates.append({"loss": value, "seconds": end - began, "phases": phases})
    on_gpu = {} if device == "cpu" else {"peak_device_memory": torch.cuda.max_memory_allocated()}
    print(json.dumps({"updates": updates, **on_gpu}))


def measured(command, threads):
    """What a process printed, with its peak memory (on the GPU, or its and its children's on the host) in bytes."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    run = json.loads(printed)
    return {**run, "peak": run.get("peak_device_memory", usage.ru_maxrss * 1024)}


def spinectl_command(program, folder, arch, device, dtype, layout, steps, again):
    command = [program, "model", "step", "--arch", f"stage2:{arch}", "--steps", str(steps), "--json"]
    command += ["--device", device, "--dtype", dtype]
    for flag in ["weights", "input", "targets", "output"]:
        command += [f"--{flag}", str(folder / f"{flag}.safetensors")]
    command += ["--optimizer", "adamw", "--learning-rate", str(LEARNING_RATE), "--weight-decay", str(WEIGHT_DECAY)]
    # PyTorch's side has one parameter group.
    command += ["--gradient-checkpointing"] if again else []
    return command + ["--decay-all"] + (["--channels-last"] if layout == "channels last" else [])


def torch_command(folder, arch, device, dtype, layout, steps, again):
    return [sys.executable, __file__, "--torch", str(folder), arch, device, dtype, layout, str(steps), *(["again"] if again else [])]


def wait_until_quiet(seconds, cores=0.25):
    """Waits, at most so long, until the other processes use less than `cores`; what they use in the end."""

    def busy():
        user, nice, system = (int(ticks) for ticks in Path("/proc/stat").read_text().split()[1:4])
        return (user + nice + system) / os.sysconf("SC_CLK_TCK")

    deadline = time.monotonic() + seconds
    while True:
        before, began = busy(), time.monotonic()
        time.sleep(2)
        used = (busy() - before) / (time.monotonic() - began)
        if used < cores or time.monotonic() > deadline:
            return used


def bench(arguments, arch, shape, dtype):
    """Rows of one architecture, shape and type: {(side, layout): {"updates": [...], "peak": bytes}}"""
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--prepare", name, arch, shape], check=True)
        first_losses = []
        for _ in range(arguments.rounds):
            for layout in arguments.layouts:
                case = (folder, arch, arguments.device, dtype, layout, arguments.steps, arguments.checkpointing)
                sides = {"PyTorch": torch_command(*case), "spinectl": spinectl_command(arguments.spinectl, *case)}
                for side, command in sides.items():
                    load = wait_until_quiet(arguments.quiet)
                    run = measured(command, arguments.threads)
                    first_losses.append(run["updates"][0]["loss"])
                    print(f"{arch} {shape} {dtype} {layout} {side}: others used {load:.2f} cores before", file=sys.stderr)
                    row = results.setdefault((side, layout), {"updates": [], "peak": 0})
                    row["updates"] += run["updates"][WARM_UP:]
                    row["peak"] = max(row["peak"], run["peak"])
        if max(first_losses) - min(first_losses) > SAME_LOSS[dtype] * max(first_losses):
            sys.exit(f"{arch}: the sides do not compute the same: first losses {sorted(set(first_losses))}")
    return results


def median(row, phase=None):
    return statistics.median(update["phases"][phase] if phase else update["seconds"] for update in row["updates"])


def table(results, layouts):
    """Lines of Markdown."""
    lines = ["| architecture, batch | layout | PyTorch s | spinectl s | time ratio | forward, backward, optimizer | PyTorch peak | spinectl peak | memory ratio |",
             "|---|---|---|---|---|---|---|---|---|"]
    for (arch, shape, dtype), rows in results.items():
        best = {side: min(layouts, key=lambda layout: median(rows[side, layout])) for side in ["PyTorch", "spinectl"]}
        pairs = [(layout, layout, layout) for layout in layouts]
        if len(layouts) > 1:
            pairs.append(("best of each", best["PyTorch"], best["spinectl"]))
        for name, theirs, ours in pairs:
            theirs, ours = rows["PyTorch", theirs], rows["spinectl", ours]
            phases = ", ".join(f"{median(ours, p) / median(theirs, p):.2f}" for p in ["forward", "backward", "optimizer"])
            cells = [f"{arch}, {shape}, {dtype}", name, f"{median(theirs):.4f}", f"{median(ours):.4f}", f"{median(ours) / median(theirs):.3f}", phases,
                     f"{theirs['peak'] / 1e9:.2f} GB", f"{ours['peak'] / 1e9:.2f} GB", f"{ours['peak'] / theirs['peak']:.3f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spinectl", default="target/release/spinectl")
    parser.add_argument("--archs", nargs="+", default=["resnest50d", "seresnext50_32x4d"])
    parser.add_argument("--shapes", nargs="+", default=["1x8x128"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtypes", nargs="+", default=["fp32"], choices=list(SAME_LOSS))
    parser.add_argument("--layouts", nargs="+", default=LAYOUTS, choices=LAYOUTS)
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing on both sides")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quiet", type=float, default=60, help="seconds to wait at most for other processes to fall still")
    arguments = parser.parse_args()
    cases = itertools.product(arguments.archs, arguments.shapes, arguments.dtypes)
    results = {case: bench(arguments, *case) for case in cases}
    print("\n".join(table(results, arguments.layouts)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--torch", folder, arch, device, dtype, layout, steps, *again]:
            run_torch(Path(folder), arch, device, dtype, layout, int(steps), bool(again))
        case ["--prepare", folder, arch, shape]:
            prepare(Path(folder), arch, shape)
        case _:
            main()
