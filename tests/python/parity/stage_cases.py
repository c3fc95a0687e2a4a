"""What the stages' models in PyTorch make of random weights and tensors.

    python stage_cases.py FOLDER

FOLDER/<stage>-<arch>/weights.safetensors
FOLDER/<stage>-<arch>/<case>/input.safetensors    the stage's input tensors
FOLDER/<stage>-<arch>/<case>/eval.safetensors     its outputs by name
FOLDER/<stage>-<arch>/<case>/train.safetensors    the same in training, and state.<buffer> after the pass
"""

import sys
from pathlib import Path

import torch
from random_weights import disturb_norms, images, statistics, write
from stages import Stage1a, Stage1b, Stage2, Stage3

# Images that stage 3 brings its sequences to.
LENGTH = 5


def prefix(length, *there):
    """(B, S): the first so many images of each study are there."""
    return (torch.arange(length) < torch.tensor(there)[:, None]).float()


def write_cases(folder, model, cases):
    weights = model.state_dict()
    write(folder / "weights.safetensors", weights)
    for name, inputs in cases.items():
        write(folder / name / "input.safetensors", inputs)
        for mode in ["eval", "train"]:
            model.load_state_dict(weights)
            with torch.no_grad():
                outputs = model.train(mode == "train")(**inputs)
            if mode == "train":
                outputs |= statistics(model)
            write(folder / name / f"{mode}.safetensors", outputs)


def slice_cases():
    image = images(2, 4, 3, 64, 64)
    # Between two bins, on the ends, and past a half, which rounds to the even bin.
    position = torch.tensor([[0.0, 0.31, 0.3125, 1.0], [0.5025, 0.5075, 0.77, 0.999]])
    return {"sequences": {"image": image, "position": position}}


def study_cases(model):
    features = torch.randn(3, 8, model.backbone.num_features)
    return {
        "features-of-one-length": {"features": features[:, :LENGTH], "mask": prefix(LENGTH, 5, 2, 1)},
        "features-too-many-and-too-few": {"features": features, "mask": prefix(8, 8, 3, 7)},
        "features-all-too-few": {"features": features[:, :3], "mask": prefix(3, 3, 2, 1)},
        "images": {"image": images(2, 7, 3, 64, 64), "mask": prefix(7, 7, 3)},
    }


def main():
    folder = Path(sys.argv[1])
    torch.manual_seed(1)

    def make(stage, arch, *arguments, **options):
        model = stage(arch, *arguments, **options)
        disturb_norms(model.backbone, lambda network: network(images(8, 3, 64, 64)))
        return folder / f"{stage.__name__.lower()}-{arch}", model

    for arch in ["resnest14d", "efficientnet_b0"]:
        where, model = make(Stage1a, arch)
        write_cases(where, model, {"slices": {"image": images(3, 3, 64, 96)}})
    where, model = make(Stage1b, "resnest14d", hidden=24)
    write_cases(where, model, slice_cases())
    # The default hidden size is that of the LSTM's input.
    where, model = make(Stage2, "efficientnet_b0")
    write_cases(where, model, slice_cases())
    where, model = make(Stage2, "resnest14d", hidden=24)
    write_cases(where, model, slice_cases())
    where, model = make(Stage3, "resnest14d", hidden=24, length=LENGTH)
    with torch.no_grad():
        model.attention.bias.normal_()
    write_cases(where, model, study_cases(model))


if __name__ == "__main__":
    main()
