"""What timm's backbones make of random weights and images.

    python backbone_cases.py FOLDER ARCH

FOLDER/weights.safetensors         the weights, for 3 channels
FOLDER/<case>/input.safetensors    image (B, C, H, W)
FOLDER/<case>/eval.safetensors     features (B, F)
FOLDER/<case>/train.safetensors    features (B, F), state.<buffer> after the pass; not there where PyTorch refuses the batch
FOLDER/<case>/drop.safetensors     one case: features in training with DROP_PATH, DROP_RATE and SEED
FOLDER/<case>/taps.safetensors     the same case: taps.<module> in evaluation
"""

import re
import sys
from pathlib import Path

import timm
import torch
from random_weights import disturb_norms, images, statistics, write
from timm.models import adapt_input_conv

DROP_PATH, DROP_RATE, SEED = 0.4, 0.25, 11

# The modules whose maps may be asked for.
TAPPED = re.compile(r"(conv_stem|conv_head|bn[12]|act1|maxpool|layer\d(\.\d+)?|blocks\.\d+(\.\d+)?)$")


class Network:
    """timm's network for some number of channels, with weights of one for 3 channels."""

    def __init__(self, arch, weights, channels, **options):
        self.model = timm.create_model(arch, num_classes=0, in_chans=channels, **options)
        stem = self.model.pretrained_cfg["first_conv"] + ".weight"
        self.weights = {**weights, stem: adapt_input_conv(channels, weights[stem])}

    def evaluate(self, image):
        self.model.load_state_dict(self.weights, strict=True)
        with torch.no_grad():
            return {"features": self.model.eval()(image)}

    def train(self, image):
        """One pass in training mode; None where a norm has one value for a channel, which PyTorch refuses."""
        self.model.load_state_dict(self.weights, strict=True)
        try:
            with torch.no_grad():
                return {"features": self.model.train()(image), **statistics(self.model)}
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                return None
            raise

    def tapped(self, image):
        """The maps that the modules of TAPPED return, by name."""
        maps = {}

        def keep(name):
            # Copied, since what follows may change a map in place.
            return lambda _module, _inputs, output: maps.__setitem__(f"taps.{name}", output.clone())

        modules = [(name, module) for name, module in self.model.named_modules() if TAPPED.match(name)]
        hooks = [module.register_forward_hook(keep(name)) for name, module in modules]
        self.evaluate(image)
        for hook in hooks:
            hook.remove()
        return maps


def main():
    folder, arch = Path(sys.argv[1]), sys.argv[2]
    torch.manual_seed(0)
    model = timm.create_model(arch, num_classes=0)
    disturb_norms(model, lambda network: network(images(8, 3, 96, 96)))
    weights = model.state_dict()
    write(folder / "weights.safetensors", weights)

    for channels in [3, 1, 6]:
        network = Network(arch, weights, channels)

        def make(batch, height, width, modes):
            image = images(batch, channels, height, width)
            case = folder / f"{batch}x{channels}x{height}x{width}"
            write(case / "input.safetensors", {"image": image})
            outputs = {mode: getattr(network, function)(image) for mode, function in modes.items()}
            for mode, output in outputs.items():
                if output is not None:
                    write(case / f"{mode}.safetensors", output)
            return image, case, outputs

        image, case, _ = make(2, 96, 96, {"eval": "evaluate", "train": "train"})
        if channels == 3:
            write(case / "taps.safetensors", network.tapped(image))
            dropping = Network(arch, weights, channels, drop_path_rate=DROP_PATH, drop_rate=DROP_RATE)
            torch.manual_seed(SEED)
            write(case / "drop.safetensors", dropping.train(image))
        _, _, outputs = make(1, 160, 128, {"eval": "evaluate", "train": "train"})
        if outputs["train"] is None:
            make(2, 160, 128, {"train": "train"})


if __name__ == "__main__":
    main()
