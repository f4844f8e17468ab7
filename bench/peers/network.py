"""The network that every peer runs, in PyTorch: a reduced ResNet-152 split at layer3.0 into 8 branches (20 classes),
weights random. The environment says which, and the size of its images:

    PEERS_NETWORK=paper     blocks 1,1,1,1, branches with 79 and 170 planes
    PEERS_NETWORK=default   blocks 3,8,1,1 within the parameters of 1,1,1,1, branches with 59 and 150 planes
    PEERS_SIZE=128
"""

import os

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

BRANCHES, CLASSES = 8, 20
SIZE = int(os.environ["PEERS_SIZE"])
# Blocks of the stem's two stages, planes of a branch's two blocks.
BLOCKS, PLANES = {"paper": ((1, 1), (79, 170)), "default": ((3, 8), (59, 150))}[os.environ["PEERS_NETWORK"]]


class Bottleneck(nn.Module):
    """ResNet v1.5: the stride is in the 3x3."""

    def __init__(self, cin, width, stride, downsample):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.down, self.down_bn = None, None
        if downsample:
            self.down = nn.Conv2d(cin, 4 * width, 1, stride=stride, bias=False)
            self.down_bn = nn.BatchNorm2d(4 * width)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += x if self.down is None else self.down_bn(self.down(x))
        return F.relu(y, inplace=True)

    def fold(self):
        for conv, bn in [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("down", "down_bn")]:
            if getattr(self, conv) is not None:
                setattr(self, conv, fuse_conv_bn_eval(getattr(self, conv), getattr(self, bn)))
                setattr(self, bn, nn.Identity())


class Stem(nn.Module):
    """conv1, bn1, ReLU, max-pool."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)

    def forward(self, x):
        return F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, stride=2, padding=1)

    def fold(self):
        self.conv1, self.bn1 = fuse_conv_bn_eval(self.conv1, self.bn1), nn.Identity()


class Split(nn.Module):
    """The stem run once, then every branch: the mean of their probabilities."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(Stem(), *stage(64, 64, BLOCKS[0], 1), *stage(256, 128, BLOCKS[1], 2))
        p3, p4 = PLANES
        tail = lambda: nn.Sequential(*stage(512, p3, 1, 2), *stage(4 * p3, p4, 1, 2), *head(4 * p4))
        self.tails = nn.ModuleList(tail() for _ in range(BRANCHES))

    def forward(self, x):
        features = self.stem(x)
        return torch.stack([tail(features) for tail in self.tails]).softmax(-1).mean(0)

    def folded(self):
        """In inference form, batch norms folded into the convolutions."""
        self.eval()
        for module in list(self.modules()):
            if hasattr(module, "fold"):
                module.fold()
        return self


def stage(cin, width, count, stride):
    first = Bottleneck(cin, width, stride, True)
    return [first] + [Bottleneck(4 * width, width, 1, False) for _ in range(count - 1)]


def head(cin):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, CLASSES)]


def resnet152():
    blocks = stage(64, 64, 3, 1) + stage(256, 128, 8, 2) + stage(512, 256, 36, 2) + stage(1024, 512, 3, 2)
    return nn.Sequential(Stem(), *blocks, *head(2048))
