"""Writes bf16.safetensors: the network of split.safetensors in bf16.

    python make_bf16.py       # needs torch, numpy and safetensors; draws the same numbers as make.py

In training, weights, what convolutions put out, what ReLU puts out and the gradients of these two are rounded to bf16; all
else is float64, the classifier too. In inference form the weights are rounded after batch norm has been folded into them,
and so are operands and what a bottleneck puts out; the classifier is not.
"""

import torch
import torch.nn.functional as F
from make import HERE, Bottleneck, Random, Sequence, pixels
from safetensors.torch import save_file
from torch import nn


def bf16(t):
    return t.float().bfloat16().to(t.dtype)


class RoundedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, stride, padding):
        ctx.save_for_backward(x, w)
        ctx.geometry = stride, padding
        return F.conv2d(bf16(x), bf16(w), stride=stride, padding=padding)

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        stride, padding = ctx.geometry
        dx = torch.nn.grad.conv2d_input(x.shape, bf16(w), bf16(dy), stride, padding)
        dw = torch.nn.grad.conv2d_weight(bf16(x), w.shape, bf16(dy), stride, padding)
        return dx, dw, None, None


class Conv(nn.Conv2d):
    def forward(self, x):
        return RoundedConv.apply(x, self.weight, self.stride, self.padding)


class Stored(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return bf16(x)

    @staticmethod
    def backward(ctx, dy):
        return bf16(dy)


class StoredBottleneck(Bottleneck):
    def forward(self, x):
        def conv(conv, x):
            return Stored.apply(RoundedConv.apply(x, conv.weight, conv.stride, conv.padding))

        y = Stored.apply(F.relu(self.bn1(conv(self.conv1, x))))
        y = Stored.apply(F.relu(self.bn2(conv(self.conv2, y))))
        skip = x if self.downsample is None else self.downsample[1](conv(self.downsample[0], x))
        return Stored.apply(F.relu(self.bn3(conv(self.conv3, y)) + skip))


def in_training(module):
    for child in module.modules():
        if isinstance(child, Bottleneck):
            child.__class__ = StoredBottleneck
    return module.train()


def rounded(module):
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            child.__class__ = Conv
    return module


def fold(conv, bn):
    scale = bn.weight / (bn.running_var + bn.eps).sqrt()
    conv.weight.data = conv.weight.data * scale[:, None, None, None]
    shift = bn.bias - bn.running_mean * scale
    bn.weight.data, bn.bias.data = torch.ones_like(scale), shift.detach()
    bn.running_mean, bn.running_var = torch.zeros_like(scale), torch.ones_like(scale) - bn.eps


def folded(sequence):
    for module in sequence.modules():
        for i in ["1", "2", "3"]:
            if hasattr(module, f"conv{i}"):
                fold(getattr(module, f"conv{i}"), getattr(module, f"bn{i}"))
        if getattr(module, "downsample", None) is not None:
            fold(*module.downsample)
        if isinstance(module, Bottleneck):
            module.register_forward_hook(lambda module, x, y: bf16(y))
    return rounded(sequence).eval().requires_grad_(False)


def split():
    """The numbers of make.py's `split`, in its order."""
    r = Random(3, torch.float64)
    stem = r.fill(Sequence(8, {"layer1": [(8, 4, 1, True)], "layer2": [(16, 6, 2, True)]}))
    stages = {"layer3": [(24, 5, 2, True)], "layer4": [(20, 7, 2, True)]}
    make = lambda: Sequence(stages=stages, classes=6)
    branches = [r.fill(make()) for _ in range(3)]
    return stem, branches, make, r.images(5, 33, 35), r.labels(5, 6)


class StoredSequence(Sequence):
    def forward(self, x):
        y = Stored.apply(RoundedConv.apply(x, self.conv1.weight, self.conv1.stride, self.conv1.padding))
        x = Stored.apply(self.maxpool(Stored.apply(F.relu(self.bn1(y)))))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(x.mean((2, 3)))


def whole(out):
    """The numbers of make.py's `whole`, and its first step."""
    r = Random(4, torch.float64)
    stages = {"layer1": [(6, 5, 1, True), (20, 5, 1, False)], "layer2": [(20, 7, 2, True)]}
    net = r.fill(StoredSequence(6, stages, 5))
    net.bn1.bias.data -= 0.8
    images, labels = r.images(4, 29, 31), r.labels(4, 5)
    loss = F.cross_entropy(in_training(net)(pixels(images, torch.float64)), labels)
    loss.backward()
    out["whole_loss"] = loss[None]
    for name, p in net.named_parameters():
        out[f"whole_grad.{name}"] = p.grad


def main():
    torch.set_num_threads(1)
    out = {}
    whole(out)
    stem, branches, make, images, labels = split()
    stem = folded(stem)
    features = stem(pixels(images, torch.float64))
    logits, losses = [], []
    for i, branch in enumerate(branches):
        inference = make().double()
        inference.load_state_dict(branch.state_dict())
        logits.append(folded(inference)(features))
        loss = F.cross_entropy(in_training(branch)(features), labels)
        loss.backward()
        losses.append(loss)
        for name, p in branch.named_parameters():
            out[f"grad{i}.{name}"] = p.grad
    out["logits"], out["losses"] = torch.stack(logits), torch.stack(losses)
    tensors = {k: t.detach().float().contiguous() for k, t in out.items()}
    path = HERE / "bf16.safetensors"
    save_file(tensors, path, metadata={"torch": torch.__version__})
    path.chmod(0o644)
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
