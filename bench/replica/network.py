"""ResNets of bottleneck blocks in PyTorch, built from the names and shapes of a state dict, and safetensors files."""

import json
import struct

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

DTYPES = {"F32": np.float32, "F16": np.float16}


def read(path):
    """The tensors of a safetensors file, in f32."""
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)

    def tensor(entry):
        start, end = entry["data_offsets"]
        values = np.frombuffer(data[start:end], DTYPES[entry["dtype"]]).astype(np.float32)
        return torch.from_numpy(values.reshape(entry["shape"]))

    return {name: tensor(entry) for name, entry in header.items() if entry["dtype"] in DTYPES}


def some_branches(state, which):
    """The stem and some of the branches, numbered anew."""
    own = {k: v for k, v in state.items() if k.startswith("stem.")}
    for new, old in enumerate(which):
        prefix = f"branches.{old}."
        own |= {f"branches.{new}.{k.removeprefix(prefix)}": v for k, v in state.items() if k.startswith(prefix)}
    return own


class Bottleneck(nn.Module):
    """ResNet v1.5: the stride is in the 3x3."""

    def __init__(self, cin, width, cout, stride, downsample):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, cout, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(cout)
        self.downsample = None
        if downsample:
            self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class Sequence(nn.Module):
    """The layers that a state has, with its weights; a fresh classifier if `classes` is given."""

    def __init__(self, state, classes=None):
        super().__init__()
        self.reads_images = "conv1.weight" in state
        if self.reads_images:
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
        self.stages = []
        for stage in range(1, 5):
            blocks = []
            while (name := f"layer{stage}.{len(blocks)}") + ".conv1.weight" in state:
                width, cin = state[f"{name}.conv1.weight"].shape[:2]
                cout = state[f"{name}.conv3.weight"].shape[0]
                stride = 2 if stage > 1 and not blocks else 1
                blocks.append(Bottleneck(cin, width, cout, stride, f"{name}.downsample.0.weight" in state))
                self.features = cout
            if blocks:
                setattr(self, f"layer{stage}", nn.Sequential(*blocks))
                self.stages.append(f"layer{stage}")
        self.fc = nn.Linear(self.features, classes) if classes else None
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.num_batches_tracked = None  # only of use without a momentum
        own = self.state_dict()
        missing = [k for k in own if k not in state and not k.startswith("fc.")]
        if missing:
            raise ValueError(f"the state lacks {', '.join(missing[:3])} ...")
        self.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)

    def forward(self, x):
        if self.reads_images:
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return x if self.fc is None else self.fc(x.mean((2, 3)))


class Network(nn.Module):
    """A stem and branches, as `rrr reduce` writes them, or a whole backbone as the only branch: logits `[branch, n, classes]`."""

    def __init__(self, state, classes):
        super().__init__()

        def part(prefix):
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

        count = len({k.split(".")[1] for k in state if k.startswith("branches.")})
        self.stem = Sequence(part("stem.")) if count else None
        parts = [part(f"branches.{i}.") for i in range(count)] or [state]
        self.branches = nn.ModuleList(Sequence(p, classes) for p in parts)

    def forward(self, x):
        if self.stem is not None:
            x = self.stem(x)
        return torch.stack([branch(x) for branch in self.branches])
