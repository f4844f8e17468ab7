"""Times PyTorch on the work that `cargo run --release -p rrr-nn --example step_bench` does.

The network is a ResNet-152 reduced to blocks 1,1,1,1 and split at layer3.0 into 8 branches with 79 and 170 planes
(20 classes), weights random. Prints one JSON object per measurement:

    {"peer": "pytorch", "work": "train_step", "batch": 32, "ms": 512.3, "rounds": 5, ...}

Works:
    forward          inference of the ensemble, batch norms folded into the convolutions (--no-fold: as they are)
    train_step       one optimiser step of all branches on one batch, the frozen stem run once
    published_step   the same, as the published code does it: every branch on its own batch, 8 stem passes
    full             one step of a whole ResNet-152, everything trained

`ms` is the median of the rounds. Only the work itself is timed, never building or warming up.
"""

import argparse
import json
import os
import statistics
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="measurements per work (default 5)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=128, help="image side in pixels (default 128)")
    parser.add_argument("--work", default="forward,train_step,published_step", help="comma-separated")
    parser.add_argument("--no-fold", action="store_true", help="keep the batch norms in inference")
    parser.add_argument("--channels-last", action="store_true", help="NHWC memory format")
    return parser.parse_args()


ARGS = arguments()
os.environ["OMP_NUM_THREADS"] = str(ARGS.threads)  # read when torch is loaded

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils.fusion import fuse_conv_bn_eval  # noqa: E402

BRANCHES, CLASSES, PLANES = 8, 20, (79, 170)


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


def stage(cin, width, count, stride):
    first = Bottleneck(cin, width, stride, True)
    return [first] + [Bottleneck(4 * width, width, 1, False) for _ in range(count - 1)]


def head(cin):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, CLASSES)]


def split_network():
    stem = nn.Sequential(Stem(), *stage(64, 64, 1, 1), *stage(256, 128, 1, 2))
    p3, p4 = PLANES
    tails = [
        nn.Sequential(*stage(512, p3, 1, 2), *stage(4 * p3, p4, 1, 2), *head(4 * p4)) for _ in range(BRANCHES)
    ]
    return stem, nn.ModuleList(tails)


def resnet152():
    blocks = stage(64, 64, 3, 1) + stage(256, 128, 8, 2) + stage(512, 256, 36, 2) + stage(1024, 512, 3, 2)
    return nn.Sequential(Stem(), *blocks, *head(2048))


def images(batch):
    format = torch.channels_last if ARGS.channels_last else torch.contiguous_format
    return torch.randn(batch, 3, ARGS.size, ARGS.size).contiguous(memory_format=format)


def placed(module):
    return module.to(memory_format=torch.channels_last) if ARGS.channels_last else module


def adamw(module):
    return torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.01, fused=True)


def median_ms(run, repeat=1):
    run()
    times = []
    for _ in range(ARGS.rounds):
        start = time.perf_counter()
        for _ in range(repeat):
            run()
        times.append((time.perf_counter() - start) * 1e3 / repeat)
    return statistics.median(times), times


def report(work, batch, measured):
    ms, times = measured
    line = {"peer": "pytorch", "version": torch.__version__, "work": work, "batch": batch, "ms": round(ms, 4)}
    line |= {"min_ms": round(min(times), 4), "rounds": len(times), "threads": ARGS.threads}
    print(json.dumps(line), flush=True)


def forward():
    stem, tails = (placed(m).eval() for m in split_network())
    if not ARGS.no_fold:
        for module in list(stem.modules()) + list(tails.modules()):
            if hasattr(module, "fold"):
                module.fold()
    for batch in dict.fromkeys([ARGS.batch, 1]):
        x = images(batch)

        def run():
            with torch.inference_mode():
                features = stem(x)
                return torch.stack([tail(features) for tail in tails]).softmax(-1).mean(0)

        report("forward", batch, median_ms(run, repeat=10 if batch == 1 else 1))


def step(tail, optimizer, features, labels):
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(tail(features), labels).backward()
    optimizer.step()


def branch_training(work, shared):
    stem, tails = (placed(m) for m in split_network())
    stem.eval().requires_grad_(False)
    optimizers = [adamw(tail) for tail in tails]
    batches = [(images(ARGS.batch), torch.randint(CLASSES, (ARGS.batch,))) for _ in tails]

    def run():
        with torch.no_grad():
            features = stem(batches[0][0])
        for tail, optimizer, (x, labels) in zip(tails, optimizers, batches):
            if shared:
                step(tail, optimizer, features, batches[0][1])
            else:
                with torch.no_grad():
                    own = features if x is batches[0][0] else stem(x)
                step(tail, optimizer, own, labels)

    report(work, ARGS.batch, median_ms(run))


def full():
    net = placed(resnet152()).train()
    optimizer = adamw(net)
    x, labels = images(ARGS.batch), torch.randint(CLASSES, (ARGS.batch,))
    report("full", ARGS.batch, median_ms(lambda: step(net, optimizer, x, labels)))


def main():
    torch.manual_seed(0)
    torch.set_num_threads(ARGS.threads)
    works = {
        "forward": forward,
        "train_step": lambda: branch_training("train_step", shared=True),
        "published_step": lambda: branch_training("published_step", shared=False),
        "full": full,
    }
    for work in ARGS.work.split(","):
        works[work]()


if __name__ == "__main__":
    main()
