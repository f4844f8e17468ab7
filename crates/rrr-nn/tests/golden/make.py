"""Writes the golden files beside this script: what PyTorch computes, for the tests of rrr-nn.

    python make.py            # needs torch, numpy and safetensors

Inputs are drawn in float32 from fixed seeds; PyTorch then computes in float64 and the results are rounded to
float32, so a golden value is PyTorch's answer without PyTorch's own rounding errors. Everything is computed a
second time in float32, and the largest difference, relative to the largest value of a tensor, is printed: no
float32 implementation can be asked to do much better than that.

Names are those of timm and torchvision. Images are stored as uint8 `p` and mean `(p - 128) / 64`, channels first.
"""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent


class Bottleneck(nn.Module):
    """ResNet v1.5: the stride is in the 3x3."""

    def __init__(self, cin, width, stride, downsample):
        super().__init__()
        cout = 4 * width
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, cout, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(cout)
        self.downsample = None
        if downsample:
            conv = nn.Conv2d(cin, cout, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(cout))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Sequence(nn.Module):
    """Optional conv1, bn1, ReLU, max-pool; stages of blocks `{name: [(cin, width, stride, downsample)]}`;
    optional pooling and fc."""

    def __init__(self, conv1=None, stages=None, classes=None):
        super().__init__()
        if conv1:
            self.conv1 = nn.Conv2d(3, conv1, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(conv1)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = list(stages or {})
        for name, blocks in (stages or {}).items():
            setattr(self, name, nn.Sequential(*(Bottleneck(*b) for b in blocks)))
        if classes:
            self.fc = nn.Linear(4 * blocks[-1][1], classes)

    def forward(self, x):
        if hasattr(self, "conv1"):
            x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(x.mean((2, 3))) if hasattr(self, "fc") else x


class Random:
    """Numbers that are the same for every precision."""

    def __init__(self, seed, dtype):
        self.g = torch.Generator().manual_seed(seed)
        self.dtype = dtype

    def normal(self, *shape):
        return torch.randn(shape, generator=self.g).to(self.dtype)

    def uniform(self, low, high, *shape):
        return (torch.rand(shape, generator=self.g) * (high - low) + low).to(self.dtype)

    def labels(self, n, classes):
        return torch.randint(classes, (n,), generator=self.g)

    def images(self, n, height, width):
        return torch.randint(256, (n, 3, height, width), generator=self.g).to(torch.uint8)

    def fill(self, module):
        """Weights with signal in every tensor: a trained network's batch norms are not 1, 0, 0, 1."""
        module.to(self.dtype)
        with torch.no_grad():
            for name, t in module.state_dict().items():
                if t.dim() == 0:
                    continue  # num_batches_tracked
                if t.dim() == 4:
                    t.copy_(self.normal(*t.shape) * (2 / t[0].numel()) ** 0.5)
                elif name.endswith("running_var"):
                    t.copy_(self.uniform(0.5, 2.0, *t.shape))
                elif t.dim() == 1 and name.endswith("weight"):
                    t.copy_(self.uniform(0.5, 1.5, *t.shape))
                else:
                    t.copy_(self.normal(*t.shape) * 0.2)
        return module


def pixels(images, dtype):
    return (images.to(dtype) - 128) / 64


def put_state(out, prefix, module):
    for name, t in module.state_dict().items():
        if t.dim():
            out[f"{prefix}.{name}"] = t.detach().clone()


def put_running(out, prefix, module):
    for name, t in module.named_buffers():
        if t.dim():
            out[f"{prefix}.{name}"] = t.detach().clone()


def put_grads(out, prefix, module):
    for name, p in module.named_parameters():
        out[f"{prefix}.{name}"] = p.grad.detach().clone()


def adamw(params, lr=1e-3):
    return torch.optim.AdamW(params, lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)


def layers(dtype):
    """Every layer alone: inputs, outputs, gradients."""
    out, r = {}, Random(1, dtype)

    def backward(name, y, **inputs):
        dy = r.normal(*y.shape)
        y.backward(dy)
        out[f"{name}.y"], out[f"{name}.dy"] = y, dy
        for key, t in inputs.items():
            out[f"{name}.{key}"], out[f"{name}.d{key}"] = t, t.grad

    def leaf(t):
        return t.clone().requires_grad_()

    # name: (input shape, output channels, kernel, stride, padding)
    convs = {
        "conv_7x7_s2_p3": ((2, 3, 13, 10), 5, 7, 2, 3),
        "conv_3x3_s1_p1": ((2, 5, 7, 6), 4, 3, 1, 1),
        "conv_3x3_s2_p1": ((3, 7, 8, 5), 5, 3, 2, 1),
        "conv_1x1_s1_p0": ((2, 17, 3, 5), 9, 1, 1, 0),
        "conv_1x1_s2_p0": ((2, 6, 6, 7), 11, 1, 2, 0),
        "conv_5x5_s3_p2": ((1, 3, 11, 8), 2, 5, 3, 2),
        "conv_3x3_s2_p1_point": ((1, 5, 1, 1), 7, 3, 2, 1),
    }
    for name, (shape, cout, k, stride, pad) in convs.items():
        x, w = leaf(r.normal(*shape)), leaf(r.normal(cout, shape[1], k, k) * 0.3)
        backward(name, F.conv2d(x, w, stride=stride, padding=pad), x=x, w=w)

    for name, shape in {"bn": (3, 5, 4, 7), "bn_point": (7, 3, 1, 1)}.items():
        bn = r.fill(nn.BatchNorm2d(shape[1]))
        x = leaf(r.normal(*shape) * 1.7 + 0.6)
        put_state(out, f"{name}.before", bn)
        backward(name, bn(x), x=x)
        put_grads(out, f"{name}.grad", bn)
        put_running(out, f"{name}.after", bn)
        out[f"{name}.eval_y"] = bn.eval()(x)

    x = r.normal(2, 3, 5, 4)
    x[0, 1] = 0.0
    x = leaf(x)
    backward("relu", F.relu(x), x=x)

    for name, shape in {"max_pool": (2, 3, 9, 6), "max_pool_point": (2, 2, 1, 1)}.items():
        x = leaf((r.normal(*shape) * 2).round())  # whole numbers: many ties
        backward(name, F.max_pool2d(x, 3, stride=2, padding=1), x=x)

    x = leaf(r.normal(3, 5, 3, 7))
    backward("average_pool", x.mean((2, 3), keepdim=True), x=x)

    x, w, b = leaf(r.normal(5, 13)), leaf(r.normal(7, 13)), leaf(r.normal(7))
    backward("linear", F.linear(x, w, b), x=x, w=w, b=b)

    labels = r.labels(6, 5)
    out["cross_entropy.labels"] = labels
    logits = r.normal(6, 5) * 3
    out["cross_entropy.x"] = logits
    for name, smoothing in {"plain": 0.0, "smooth": 0.1}.items():
        x = leaf(logits)
        loss = F.cross_entropy(x, labels, label_smoothing=smoothing)
        loss.backward()
        out[f"cross_entropy.{name}.loss"], out[f"cross_entropy.{name}.dx"] = loss.reshape(1), x.grad

    p = leaf(r.normal(37))
    out["adamw.before"] = p.detach().clone()
    optimizer = adamw([p])
    for step, lr in enumerate([1e-3, 1e-2, 5e-4]):
        p.grad = r.normal(37) * 10.0 ** (step - 1)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        out[f"adamw.{step}.grad"], out[f"adamw.{step}.after"] = p.grad.clone(), p.detach().clone()
    out["adamw.m"], out["adamw.v"] = optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"]

    average = r.normal(11)
    out["ema.before"] = average.clone()
    for n in range(1, 6):  # the target 0.4 is reached at n = 5
        p = r.normal(11)
        decay = min(0.4, (1 + n) / (10 + n))
        average = average * decay + p * (1 - decay)
        out[f"ema.{n}.param"], out[f"ema.{n}.after"] = p, average
    return out


def bottleneck(dtype):
    """One block in train mode, with and without a downsample."""
    out, r = {}, Random(2, dtype)
    blocks = {
        "down": ((3, 9, 7, 6), (9, 5, 2, True)),
        "widen": ((2, 6, 5, 5), (6, 3, 1, True)),
        "plain": ((3, 20, 5, 4), (20, 5, 1, False)),
    }
    for name, (shape, block) in blocks.items():
        net = r.fill(Sequence(stages={"layer3": [block]}))
        x = r.normal(*shape).requires_grad_()
        put_state(out, f"{name}.before", net)
        out[f"{name}.eval_y"] = copy.deepcopy(net).eval()(x)
        y = net(x)
        dy = r.normal(*y.shape)
        y.backward(dy)
        out.update({f"{name}.x": x, f"{name}.dx": x.grad, f"{name}.y": y, f"{name}.dy": dy})
        put_grads(out, f"{name}.grad", net)
        put_running(out, f"{name}.after", net)
    return out


def split(dtype):
    """A frozen stem and three branches: inference, warming, gradients, three optimiser steps with EMA."""
    out, r = {}, Random(3, dtype)
    stem = r.fill(Sequence(8, {"layer1": [(8, 4, 1, True)], "layer2": [(16, 6, 2, True)]}))
    stem = stem.eval().requires_grad_(False)
    stages = {"layer3": [(24, 5, 2, True)], "layer4": [(20, 7, 2, True)]}
    branches = [r.fill(Sequence(stages=stages, classes=6)) for _ in range(3)]
    put_state(out, "stem", stem)
    for i, branch in enumerate(branches):
        put_state(out, f"branch{i}", branch)
    batches = [(r.images(5, 33, 35), r.labels(5, 6)) for _ in range(3)]
    for i, (images, labels) in enumerate(batches):
        out[f"images{i}"], out[f"labels{i}"] = images, labels

    with torch.no_grad():
        features = stem(pixels(batches[0][0], dtype))
        out["logits"] = torch.stack([copy.deepcopy(b).eval()(features) for b in branches])
        warmed = copy.deepcopy(stem).train()
        for images, _ in batches[:2]:
            warmed(pixels(images, dtype))
        put_running(out, "warmed", warmed)

    optimizers = [adamw(b.parameters()) for b in branches]
    averages = [{k: p.detach().clone() for k, p in b.named_parameters()} for b in branches]
    losses = []
    for step, (images, labels) in enumerate(batches):
        features = stem(pixels(images, dtype))
        for i, (branch, optimizer) in enumerate(zip(branches, optimizers)):
            optimizer.zero_grad()
            loss = F.cross_entropy(branch(features), labels)
            loss.backward()
            losses.append(loss)
            if step == 0:
                put_grads(out, f"grad{i}", branch)
            optimizer.step()
            n = step + 1
            decay = min(59 / 60, (1 + n) / (10 + n))
            for name, p in branch.named_parameters():
                averages[i][name] = averages[i][name] * decay + p.detach() * (1 - decay)
    out["losses"] = torch.stack(losses).reshape(3, 3)  # [step][branch]
    for i, (branch, optimizer) in enumerate(zip(branches, optimizers)):
        put_state(out, f"after{i}", branch)
        for name, p in branch.named_parameters():
            out[f"m{i}.{name}"] = optimizer.state[p]["exp_avg"]
            out[f"v{i}.{name}"] = optimizer.state[p]["exp_avg_sq"]
            out[f"ema{i}.{name}"] = averages[i][name]
    return out


def whole(dtype):
    """A network without a split: everything trained (fine-tuning), then only the classifier (linear probe)."""
    out, r = {}, Random(4, dtype)
    stages = {"layer1": [(6, 5, 1, True), (20, 5, 1, False)], "layer2": [(20, 7, 2, True)]}
    initial = r.fill(Sequence(6, stages, 5))
    # Without zeros among the pooled values, the next batch norms would cancel this bias: its gradient would be
    # rounding noise, which AdamW turns into a full step of arbitrary sign.
    initial.bn1.bias.data -= 0.8
    images, labels = r.images(4, 29, 31), r.labels(4, 5)
    put_state(out, "before", initial)
    out["images"], out["labels"] = images, labels
    with torch.no_grad():
        out["logits"] = copy.deepcopy(initial).eval()(pixels(images, dtype))
    for name in ["finetune", "probe"]:
        net = copy.deepcopy(initial)
        if name == "probe":
            net.requires_grad_(False)
            net.fc.requires_grad_(True)
        trained = {k: p for k, p in net.named_parameters() if p.requires_grad}
        optimizer = adamw(trained.values())
        loss = F.cross_entropy(net(pixels(images, dtype)), labels)
        loss.backward()
        optimizer.step()
        out[f"{name}.loss"] = loss.reshape(1)
        for key, p in trained.items():
            out[f"{name}.grad.{key}"], out[f"{name}.after.{key}"] = p.grad, p.detach()
        put_running(out, f"{name}.after", net)
    return out


def main():
    torch.set_num_threads(1)
    for make in [layers, bottleneck, split, whole]:
        exact, rounded = make(torch.float64), make(torch.float32)
        worst = (0.0, "")
        for name, t in exact.items():
            if t.is_floating_point():
                difference = (t - rounded[name].double()).abs().max() / t.abs().max().clamp_min(1e-30)
                worst = max(worst, (difference.item(), name))
        tensors = {}
        for name, t in exact.items():
            stored = torch.float32 if t.is_floating_point() else t.dtype
            tensors[name] = t.detach().to(stored if stored != torch.int64 else torch.int32).contiguous()
        path = HERE / f"{make.__name__}.safetensors"
        save_file(tensors, path, metadata={"torch": torch.__version__})
        path.chmod(0o644)
        print(f"{path.name}: {path.stat().st_size} bytes, float32 differs by {worst[0]:.1e} ({worst[1]})")


if __name__ == "__main__":
    main()
