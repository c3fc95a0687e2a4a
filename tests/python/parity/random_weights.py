"""Random weights that hide nothing, and files of tensors."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn


def disturb_norms(model, run):
    """Gives every batch norm of `model` weights, biases and running statistics of its own.

    timm starts the last norm of a residual block at weight 0, so that the block adds nothing, and all running statistics at
    (0, 1), so that maps grow from block to block until biases do not count. Here the statistics are first measured, on one
    forward pass in training mode (`run(model)`), and then changed a little.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.6, 1.4)
        nn.init.normal_(norm.bias, 0.0, 0.2)
        norm.momentum = 1.0  # the running statistics become those of the next batch
    model.train()
    with torch.no_grad():
        run(model)
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
            deviation = norm.running_var.sqrt()
            norm.running_mean += 0.1 * deviation * torch.randn_like(deviation)
            norm.running_var *= torch.empty_like(deviation).uniform_(0.7, 1.4)
            norm.num_batches_tracked.fill_(7)


def statistics(model):
    """The running statistics of a model, as `state.<buffer name>`."""
    state = model.state_dict()  # without what is no part of it, such as the table of positions
    return {f"state.{name}": state[name] for name, _ in model.named_buffers() if name in state}


def write(path, tensors):
    """A safetensors file with copies of the tensors, in the plain layout."""
    copies = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(copies, str(path))


def images(*shape):
    """Random images (..., C, H, W) that differ in brightness, contrast and shapes, as real ones do.

    Pure noise would be the same image again after pooling, and a batch norm over pooled maps would blow rounding errors up.
    """
    *batch, channels, height, width = shape
    count = math.prod(batch)
    coarse = F.interpolate(torch.randn(count, channels, 5, 5), size=(height, width), mode="bilinear")
    contrast = torch.empty(count, 1, 1, 1).uniform_(0.5, 1.5)
    brightness = torch.randn(count, channels, 1, 1)
    image = contrast * (coarse + 0.3 * torch.randn(count, channels, height, width)) + brightness
    return image.reshape(shape)
