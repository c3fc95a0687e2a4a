"""The models of the four stages in PyTorch, under the pipeline's parameter names.

B studies or slices, S images of a sequence, C channels, F features of a slice, D hidden states of one direction.
"""

import math

import timm
import torch
import torch.nn.functional as F
from torch import nn

POSITION_BINS, POSITION_WIDTH = 201, 16
VERTEBRAE, LABELS = 7, 8


def backbone(arch, channels=3, **options):
    return timm.create_model(arch, num_classes=0, in_chans=channels, **options)


def position_table():
    """(201, 16): row p holds the sines, then the cosines, of p at 8 frequencies from 1 to 1/10000."""
    half = POSITION_WIDTH // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
    angles = torch.arange(POSITION_BINS, dtype=torch.float32)[:, None] * frequencies[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def bidirectional(width, hidden):
    return nn.LSTM(width, hidden, num_layers=1, batch_first=True, bidirectional=True)


class Stage1a(nn.Module):
    """image (B, C, H, W) -> box (B, 4), has_box (B,), a logit."""

    inputs, targets = ["image"], ["box", "has_box"]

    def __init__(self, arch, **options):
        super().__init__()
        self.backbone = backbone(arch, **options)
        self.head_box = nn.Linear(self.backbone.num_features, 4)
        self.head_has_box = nn.Linear(self.backbone.num_features, 1)

    def forward(self, image):
        features = self.backbone(image)
        return {"box": self.head_box(features), "has_box": self.head_has_box(features)[:, 0]}

    @staticmethod
    def loss(output, target):
        sides = (output["box"] - target["box"]).pow(2).mean(dim=1)
        # Slices without a box count as 0. The root needs a slope at 0.
        box = torch.where(target["has_box"] > 0, (sides + 1e-8).sqrt(), 0.0).mean()
        has_box = F.binary_cross_entropy_with_logits(output["has_box"], target["has_box"].clip(0.05, 0.95))
        return 0.8 * box + 0.2 * has_box


def doubled_where_positive(output, target):
    squares = (output - target) ** 2
    return torch.where(target != 0, 2 * squares, squares).mean()


class Sequence(nn.Module):
    """image (B, S, C, H, W), position (B, S) in 0..1 -> states of a bidirectional LSTM (B, S, 2 D)."""

    inputs = ["image", "position"]

    def __init__(self, arch, hidden, **options):
        super().__init__()
        self.backbone = backbone(arch, **options)
        width = self.backbone.num_features + POSITION_WIDTH
        self.rnn = bidirectional(width, hidden or width)
        self.register_buffer("positions", position_table(), persistent=False)

    def states(self, image, position):
        studies, images = image.shape[:2]
        features = self.backbone(image.flatten(0, 1)).unflatten(0, (studies, images))
        bins = torch.round(position * (POSITION_BINS - 1)).long()
        return self.rnn(torch.cat([features, self.positions[bins]], dim=-1))[0]


class Stage1b(Sequence):
    """-> ratio (B, S, 7)"""

    targets = ["ratio"]

    def __init__(self, arch, hidden=None, **options):
        super().__init__(arch, hidden, **options)
        self.head = nn.Linear(2 * self.rnn.hidden_size, VERTEBRAE)

    def forward(self, image, position):
        return {"ratio": self.head(self.states(image, position))}

    @staticmethod
    def loss(output, target):
        return doubled_where_positive(output["ratio"], target["ratio"])


class Stage2(Sequence):
    """-> ratio, fracture (B, S, 7), any (B, S)"""

    targets = ["ratio", "fracture"]

    def __init__(self, arch, hidden=None, **options):
        super().__init__(arch, hidden, **options)
        width = 2 * self.rnn.hidden_size
        self.head_ratio = nn.Linear(width, VERTEBRAE)
        self.head_fracture = nn.Linear(width, VERTEBRAE)
        self.head_any = nn.Linear(width, 1)

    def forward(self, image, position):
        states = self.states(image, position)
        return {
            "ratio": self.head_ratio(states),
            "fracture": self.head_fracture(states),
            "any": self.head_any(states)[..., 0],
        }

    @staticmethod
    def loss(output, target):
        truth = {**target, "any": target["fracture"].max(dim=-1).values}
        return sum(doubled_where_positive(output[name], truth[name]) for name in ["ratio", "fracture", "any"])


class Attention(nn.Module):
    """A weighted mean of the states, the weights from a score for each image."""

    def __init__(self, width, length):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width).uniform_(-1, 1) / math.sqrt(width))
        self.bias = nn.Parameter(torch.zeros(length))

    def forward(self, states, mask):
        scores = torch.tanh(torch.einsum("bsd,d->bs", states, self.weight) + self.bias)
        weights = torch.softmax(scores.masked_fill(mask == 0, -torch.inf), dim=1)
        return torch.einsum("bs,bsd->bd", weights, states)


class Stage3(nn.Module):
    """image (B, S, C, H, W) or features (B, S, F), mask (B, S) -> logits (B, 8)

    The CNN is frozen: no gradient reaches it, and it runs as in evaluation.
    """

    inputs, targets = ["image", "features", "mask"], ["label"]

    def __init__(self, arch, hidden, length, **options):
        super().__init__()
        self.backbone = backbone(arch, **options).requires_grad_(False)
        self.rnn = bidirectional(self.backbone.num_features, hidden)
        self.attention = Attention(2 * hidden, length)
        self.head = nn.Linear(4 * hidden, LABELS)
        self.length = length

    def train(self, mode=True):
        super().train(mode)
        self.backbone.eval()
        return self

    def fit(self, features):
        """One study's (n, F) to (S, F) and how many of the S are there: longer sequences are resampled, shorter ones padded."""
        images = len(features)
        if images > self.length:
            features = F.interpolate(features.T[None], size=self.length, mode="linear", align_corners=False)
            return features[0].T, self.length
        return F.pad(features, (0, 0, 0, self.length - images)), images

    def forward(self, mask, image=None, features=None):
        if features is None:
            with torch.no_grad():
                features = self.backbone(image.flatten(0, 1)).unflatten(0, image.shape[:2])
        fitted = [self.fit(own[there > 0]) for own, there in zip(features, mask)]
        features = torch.stack([own for own, _ in fitted])
        images = torch.tensor([images for _, images in fitted])
        mask = (torch.arange(self.length) < images[:, None]).float()
        states = self.rnn(features)[0]
        largest = states.masked_fill(mask[..., None] == 0, -torch.inf).max(dim=1).values
        return {"logits": self.head(torch.cat([largest, self.attention(states, mask)], dim=1))}

    @staticmethod
    def loss(output, target):
        truth = target["label"]
        base = torch.tensor([7.0] + [1.0] * VERTEBRAE)
        weights = torch.where(truth > 0, 2 * base, base)
        losses = F.binary_cross_entropy_with_logits(output["logits"], truth, reduction="none")
        return ((losses * weights).sum(dim=1) / weights.sum(dim=1)).mean()


class Bare(nn.Module):
    """A backbone by itself: image (B, C, H, W) -> features (B, F)"""

    inputs, targets = ["image"], ["features"]

    def __init__(self, arch, **options):
        super().__init__()
        self.backbone = backbone(arch, **options)

    def forward(self, image):
        return {"features": self.backbone(image)}

    @staticmethod
    def loss(output, target):
        return F.mse_loss(output["features"], target["features"])
