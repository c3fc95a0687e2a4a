"""Loads files of weights into timm's and the stages' models, strictly, and compares them with fresh ones.

    python initial_weights.py FOLDER

Every FOLDER/<model>.safetensors, with - for the : of a stage's model, holds its initial weights as `final.<name>`. Prints a line for
every fault and at the end how many tensors were compared.
"""

import math
import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from stages import Stage1a, Stage1b, Stage2, Stage3

STAGES = {"stage1a": Stage1a, "stage1b": Stage1b, "stage2": Stage2, "stage3": Stage3}

# How many standard errors two samples may be apart. Of tens of thousands of comparisons none of a right model is.
SIGMA = 6.0


def fresh(name, weights):
    stage, _, arch = name.rpartition("-")
    if not stage:
        return timm.create_model(arch, num_classes=0)
    sizes = {}
    if "rnn.weight_hh_l0" in weights:
        sizes["hidden"] = weights["rnn.weight_hh_l0"].shape[1]
    if stage == "stage3":
        sizes["length"] = len(weights["attention.bias"])
    return STAGES[stage](arch, **sizes)


def far_apart(mine, theirs):
    """What distinguishes two samples, by mean, spread and tails; nothing where they may be of one distribution."""
    a, b = mine.double().flatten(), theirs.double().flatten()
    n = b.numel()
    if theirs.ndim == 0 or (n > 1 and b.std() == 0):
        return None if torch.equal(mine, theirs) else f"{a[:3].tolist()} where timm has {b[0]}"
    if n == 1:
        return None
    if n < 16:  # too few for statistics
        return None if a.abs().max() < 5 * b.abs().max() else f"{a.tolist()} where timm has {b.tolist()}"
    spread = b.std()
    if (a.mean() - b.mean()).abs() > SIGMA * spread * math.sqrt(2 / n):
        return f"mean {a.mean():.2e} and {b.mean():.2e}"
    # Of a normal distribution, whose spread and tails have larger errors than those of a uniform one.
    if (a.std() / spread).log().abs() > SIGMA * math.sqrt(1 / n):
        return f"standard deviation {a.std():.3e} and {spread:.3e}"
    tails = [((x - x.mean()) ** 4).mean() / x.var() ** 2 for x in (a, b)]
    if n >= 1000 and (tails[0] - tails[1]).abs() > SIGMA * math.sqrt(48 / n):
        return f"kurtosis {tails[0]:.2f} and {tails[1]:.2f}"
    return None


def compare(path):
    weights = {name.removeprefix("final."): tensor for name, tensor in load_file(path).items() if name.startswith("final.")}
    model = fresh(path.stem, weights)
    theirs = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # Fails where a key is missing, unexpected or of another shape.
    model.load_state_dict(weights, strict=True)
    for name, tensor in theirs.items():
        fault = far_apart(weights[name], tensor)
        if weights[name].dtype != tensor.dtype:
            fault = f"{weights[name].dtype} where timm has {tensor.dtype}"
        if fault:
            print(f"{path.stem} {name}: {fault}")
    return len(theirs)


def main():
    torch.manual_seed(3)
    compared = {path.stem: compare(path) for path in sorted(Path(sys.argv[1]).glob("*.safetensors"))}
    print(f"compared {sum(compared.values())} tensors of {len(compared)} models")


if __name__ == "__main__":
    main()
