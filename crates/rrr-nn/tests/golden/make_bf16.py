"""Writes bf16.safetensors: the network of split.safetensors with the operands of its matrix products in bf16.

    python make_bf16.py       # needs torch, numpy and safetensors; draws the same numbers as make.py

In training, convolutions and the classifier round both operands to bf16, in the forward pass and in both gradients; all
else is float64. In inference form the weights are rounded after batch norm has been folded into them, and so is what a
bottleneck puts out; the classifier is not.
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


class Linear(nn.Linear):
    def forward(self, x):
        return RoundedConv.apply(x[:, :, None, None], self.weight[:, :, None, None], 1, 0)[:, :, 0, 0] + self.bias


def rounded(module, classifier):
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            child.__class__ = Conv
        elif classifier and isinstance(child, nn.Linear):
            child.__class__ = Linear
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
    return rounded(sequence, classifier=False).eval().requires_grad_(False)


def split():
    """The numbers of make.py's `split`, in its order."""
    r = Random(3, torch.float64)
    stem = r.fill(Sequence(8, {"layer1": [(8, 4, 1, True)], "layer2": [(16, 6, 2, True)]}))
    stages = {"layer3": [(24, 5, 2, True)], "layer4": [(20, 7, 2, True)]}
    make = lambda: Sequence(stages=stages, classes=6)
    branches = [r.fill(make()) for _ in range(3)]
    return stem, branches, make, r.images(5, 33, 35), r.labels(5, 6)


def main():
    torch.set_num_threads(1)
    out = {}
    stem, branches, make, images, labels = split()
    stem = folded(stem)
    features = stem(pixels(images, torch.float64))
    logits, losses = [], []
    for i, branch in enumerate(branches):
        inference = make().double()
        inference.load_state_dict(branch.state_dict())
        logits.append(folded(inference)(features))
        loss = F.cross_entropy(rounded(branch, classifier=True).train()(features), labels)
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
