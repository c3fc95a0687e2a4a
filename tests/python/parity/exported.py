"""Takes what `spinectl checkpoint export` has written into timm and torch, and runs it.

    python exported.py FOLDER

Reads cnn.safetensors (the CNN of a stage-2 model around resnest14d), model.pt (the whole model in TorchScript) and input.safetensors (image,
position). Writes found.safetensors: features of the CNN in timm, (B S, F), and the model's ratio, fracture, any.
"""

import sys
from pathlib import Path

import timm
import torch
from random_weights import write
from safetensors.torch import load_file


def main():
    folder = Path(sys.argv[1])
    inputs = load_file(folder / "input.safetensors")
    cnn = timm.create_model("resnest14d", num_classes=0)
    # Fails where a key is missing, unexpected or of another shape.
    cnn.load_state_dict(load_file(folder / "cnn.safetensors"), strict=True)
    model = torch.jit.load(str(folder / "model.pt"))
    with torch.no_grad():
        features = cnn.eval()(inputs["image"].flatten(0, 1))
        outputs = model(inputs["image"], inputs["position"])
    write(folder / "found.safetensors", {"features": features, **dict(zip(["ratio", "fracture", "any"], outputs))})


if __name__ == "__main__":
    main()
