"""Updates of a model by PyTorch's and timm's optimizers, from random weights.

    python step_cases.py FOLDER REQUEST

REQUEST is JSON: {"model": "stage2:resnest14d", "hidden": 24, "updates": [{"name": ..., ...}, ...]}, or a list of these; the keys of
an update are those of `Update` below. With PLACE for FOLDER/<model, with - for :>,

PLACE/weights.safetensors
PLACE/input.safetensors      the model's inputs, with a leading dimension of micro-batches
PLACE/targets.safetensors    what its loss is taken of, likewise
PLACE/<name>.safetensors     loss (N,), gradient_norm (N,), final.<name> of every parameter and buffer
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from random_weights import disturb_norms, images, write
from stages import Bare, Stage1a, Stage1b, Stage2, Stage3
from timm.optim import Lamb
from timm.utils import ModelEmaV3

MICRO_BATCHES, STUDIES, IMAGES, SIDE = 3, 2, 4, 64
# Images that stage 3 brings its sequences to.
LENGTH = 6


@dataclass
class Update:
    name: str
    optimizer: str = "adamw"
    steps: int = 10
    learning_rate: float = 3e-4
    backbone_learning_rate: float | None = None
    weight_decay: float = 5e-4
    decay_all: bool = False
    momentum: float = 0.9
    accumulation: int = 1
    clip_norm: float | None = None
    ema: float | None = None
    drop_path: float = 0.0
    drop_rate: float = 0.0
    seed: int = 0
    # AdamW in one kernel, which is the one that spinectl calls, or written out: the same but for rounding.
    fused: bool = True
    # What spinectl has no flag for: other values than its own show that a comparison would notice them.
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.999)

    def groups(self, model):
        """Parameters with their rate and decay: norms and biases do not decay, and the backbone may have its own rate."""
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                plain = parameter.ndim <= 1 or name.endswith(".bias")
                rate = self.learning_rate
                if name.startswith("backbone.") and self.backbone_learning_rate is not None:
                    rate = self.backbone_learning_rate
                decay = 0.0 if plain and not self.decay_all else self.weight_decay
                yield {"params": [parameter], "lr": rate, "weight_decay": decay}

    def make(self, model):
        groups = list(self.groups(model))
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, betas=self.betas, fused=self.fused)
        if self.optimizer == "sgd":
            nesterov = self.nesterov and self.momentum > 0
            # torch.optim.SGD takes momentum from its defaults for every group.
            return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.momentum, nesterov=nesterov)
        return Lamb(groups, betas=self.betas, max_grad_norm=None)


def make_model(request):
    stage, _, arch = request["model"].rpartition(":")
    options = request.get("options", {})
    if stage == "stage3":
        return Stage3(arch, request["hidden"], LENGTH, **options)
    if stage in ("stage1b", "stage2"):
        return {"stage1b": Stage1b, "stage2": Stage2}[stage](arch, request["hidden"], **options)
    return Stage1a(arch, **options) if stage else Bare(arch, **options)


def sparse(*shape):
    """Fractures and ratios: mostly 0."""
    values = torch.rand(*shape)
    return torch.where(values > 0.6, values, 0.0)


def batches(model):
    """Inputs and targets of all micro-batches."""
    k, b, s = MICRO_BATCHES, STUDIES, IMAGES
    tensors = {
        "position": torch.rand(k, b, s).sort(dim=-1).values,
        "box": torch.rand(k, 2 * b, 4),
        "has_box": torch.tensor([1.0, 0.0, 1.0, 1.0]).repeat(k, 1),
        "ratio": sparse(k, b, s, 7),
        "fracture": sparse(k, b, s, 7),
        "label": (torch.rand(k, b, 8) > 0.5).float(),
    }
    if isinstance(model, Stage3):
        tensors["features"] = torch.randn(k, b, s, model.backbone.num_features)
        tensors["mask"] = (torch.arange(s) < torch.tensor([[s], [s - 1]])).float().repeat(k, 1, 1)
        return {n: tensors[n] for n in ["features", "mask"]}, {"label": tensors["label"]}
    sequences = isinstance(model, (Stage1b, Stage2))
    tensors["image"] = images(k, b, s, 3, SIDE, SIDE) if sequences else images(k, 2 * b, 3, SIDE, SIDE)
    tensors["features"] = torch.randn(k, 2 * b, model.backbone.num_features)
    return {n: tensors[n] for n in model.inputs}, {n: tensors[n] for n in model.targets}


def update(model, settings, inputs, targets):
    """The updates; `model` is changed."""
    optimizer = settings.make(model)
    average = ModelEmaV3(model, decay=settings.ema, exclude_buffers=True) if settings.ema is not None else None
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.manual_seed(settings.seed)
    model.train()
    losses, norms = [], []
    for step in range(settings.steps):
        optimizer.zero_grad()
        total = 0.0
        for i in range(settings.accumulation):
            micro = (step * settings.accumulation + i) % MICRO_BATCHES
            output = model(**{name: tensor[micro] for name, tensor in inputs.items()})
            loss = model.loss(output, {name: tensor[micro] for name, tensor in targets.items()})
            (loss / settings.accumulation).backward()
            total += loss.item()
        limit = torch.inf if settings.clip_norm is None else settings.clip_norm
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, limit).item())
        optimizer.step()
        if average is not None:
            average.update(model)
        losses.append(total / settings.accumulation)
    final = (model if average is None else average.module).state_dict()
    return {
        "loss": torch.tensor(losses, dtype=torch.float64),
        "gradient_norm": torch.tensor(norms, dtype=torch.float64),
        **{f"final.{name}": tensor for name, tensor in final.items()},
    }


def tame(model):
    """Scales the LSTM's input weights down to what they would be with as many hidden states as inputs.

    With the few that the tests have they saturate its gates, and updates would blow rounding errors up a hundredfold.
    """
    if hasattr(model, "rnn"):
        with torch.no_grad():
            for name in ["weight_ih_l0", "weight_ih_l0_reverse"]:
                getattr(model.rnn, name).mul_((model.rnn.hidden_size / model.rnn.input_size) ** 0.5)


def bare(name):
    """A backbone by itself has its parameters without the prefix."""
    return name.removeprefix("backbone.")


def write_cases(place, request):
    torch.manual_seed(2)
    model = make_model(request)
    rename = bare if isinstance(model, Bare) else str
    tame(model)
    disturb_norms(model.backbone, lambda network: network(images(8, 3, SIDE, SIDE)))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs, targets = batches(model)
    write(place / "weights.safetensors", {rename(name): tensor for name, tensor in weights.items()})
    write(place / "input.safetensors", inputs)
    write(place / "targets.safetensors", targets)
    for settings in (Update(**keys) for keys in request["updates"]):
        options = {"drop_path_rate": settings.drop_path, "drop_rate": settings.drop_rate}
        model = make_model({**request, "options": options})
        model.load_state_dict(weights)
        results = update(model, settings, inputs, targets)
        prefixed = {f"final.{name}": f"final.{rename(name)}" for name in weights}
        write(place / f"{settings.name}.safetensors", {prefixed.get(n, n): t for n, t in results.items()})


def main():
    folder, requests = Path(sys.argv[1]), json.loads(sys.argv[2])
    for request in requests if isinstance(requests, list) else [requests]:
        write_cases(folder / request["model"].replace(":", "-"), request)


if __name__ == "__main__":
    main()
