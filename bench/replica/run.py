#!/usr/bin/env python3
"""The trainings of `rrr train` in PyTorch, on a GPU: many datasets, seeds and methods in minutes.

    bench/replica/run.py --album ALBUM --backbone FILE --out FOLDER [--methods fast,best,finetune] [--seeds 1,2,3]
                         [--measure test] [--augmentation mixed|FILE]

ALBUM holds datasets in Meta-Album's format, FILE is a whole ResNet-152 that takes images in 0..1 (what `rrr backbone pull
resnet152.resmem` prints). `rrr` itself splits and augments the images and reduces the backbone. Needs PyTorch and NumPy.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import network
from training import DEVICE, Slot, train_all

ROOT = Path(__file__).resolve().parent.parent.parent
# Epochs whose images set the statistics of the stem.
WARM_PASSES = 3


@dataclass(frozen=True)
class Method:
    size: int
    epochs: int
    lr: float
    whole: bool = False
    stem_rate: float = 0.0
    branches: int = 8
    # How many of them see the images at half the size.
    coarse: int = 0
    slots: int = 9

    def parts(self):
        """The trainings that it is made of: whether on images at half the size, and of which branches."""
        parts = [(True, range(self.coarse)), (False, range(self.coarse, self.branches))]
        return [part for part in parts if part[1]]


METHODS = {
    "fast": Method(64, 20, 1e-3),
    "fast-40": Method(64, 40, 1e-3),
    "fast-80": Method(64, 80, 1e-3),
    "fast-128": Method(128, 40, 1e-3),
    "fast-128-80": Method(128, 80, 1e-3),
    "best": Method(128, 40, 1e-3, coarse=4),
    "best-3": Method(128, 40, 1e-3, coarse=3),
    "best-5": Method(128, 40, 1e-3, coarse=5),
    "coarse": Method(128, 40, 1e-3, coarse=8),
    "stem-128": Method(128, 40, 1e-3, stem_rate=0.1),
    "stem-128-4": Method(128, 40, 1e-3, stem_rate=0.1, branches=4),
    "stem-128-2": Method(128, 40, 1e-3, stem_rate=0.1, branches=2),
    "finetune": Method(128, 15, 1e-4, whole=True),
    "finetune-3e-4": Method(128, 15, 3e-4, whole=True),
    "finetune-30": Method(128, 30, 3e-4, whole=True),
}


@dataclass
class Job:
    """A training; images and labels are on the device, `warming` holds those that the stem's statistics come from."""

    method: str
    dataset: str
    seed: int
    classes: int
    steps: int
    lr: float
    warming: torch.Tensor
    train: tuple
    held_out: tuple


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--album", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", default="fast,best,finetune", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--datasets", help="folders of the album (default: all)")
    parser.add_argument("--measure", choices=["test", "valid"], default="test",
                        help="on the test images, or on 5 of the 20 training images of each class")
    parser.add_argument("--augmentation", default="mixed", help="as of `rrr train`, or a JSON file: by dataset and seed")
    parser.add_argument("--dumped", type=int, default=40, help="epochs that are augmented; more go round again")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing after so long")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16; else TF32")
    parser.add_argument("--rrr", type=Path, help="programs that were built before, instead of cargo")
    args = parser.parse_args()
    args.seeds = [int(s) for s in args.seeds.split(",")]
    args.methods = args.methods.split(",")
    args.datasets = args.datasets.split(",") if args.datasets else sorted(p.parent.name for p in args.album.glob("*/info.json"))
    args.deadline = time.time() + args.seconds
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def programs(args):
    """`rrr` and the example that writes batches."""
    if args.rrr:
        return args.rrr / "rrr", args.rrr / "dump_batches"
    build = ["cargo", "build", "--release", "--locked", "--quiet"]
    subprocess.run([*build, "-p", "rrr-cli"], cwd=ROOT, check=True)
    subprocess.run([*build, "-p", "rrr-data", "--example", "dump_batches"], cwd=ROOT, check=True)
    release = ROOT / "target" / "release"
    return release / "rrr", release / "examples" / "dump_batches"


def reduced(rrr, branches, args):
    """Stem and branches. Widths of a multiple of 8 are what a GPU is fast with."""
    path = args.out / f"reduced-{branches}.safetensors"
    if not path.exists():
        command = [rrr, "reduce", "--backbone", args.backbone, "--mean", "0,0,0", "--std", "1,1,1"]
        command += ["--branches", str(branches), "--round-to", "8", "--out", path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return network.read(path)


def augmentation(args, dataset, seed):
    if not args.augmentation.endswith(".json"):
        return args.augmentation
    return json.loads(Path(args.augmentation).read_text())[dataset][str(seed)]


def folder(args, dataset, seed, size):
    return args.out / "batches" / f"{args.measure}-{size}" / f"{dataset}-{seed}"


def dump(program, args):
    """Writes all batches, several datasets at a time."""
    commands = []
    for size in {METHODS[m].size for m in args.methods}:
        for dataset in args.datasets:
            for seed in args.seeds:
                to = folder(args, dataset, seed, size)
                per_class = ["15", "5"] if args.measure == "valid" else []
                fixed = [str(size), augmentation(args, dataset, seed), str(args.dumped)]
                commands.append([program, args.album / dataset, to, str(seed), *fixed, *per_class])
    with ThreadPoolExecutor(args.workers) as pool:
        list(pool.map(lambda command: subprocess.run(command, check=True), commands))


def halved(images):
    """Means of 2 x 2 pixels, rounded half up."""
    n, height, width, _ = images.shape
    squares = lambda part: part.int().view(len(part), height // 2, 2, width // 2, 2, 3)
    return torch.cat([(squares(part).sum((2, 4)) + 2).div(4, rounding_mode="floor").byte() for part in images.split(1024)])


def load(args, method, dataset, seed, at_half):
    m = METHODS[method]
    at = folder(args, dataset, seed, m.size)

    def part(name):
        images = np.fromfile(at / f"{name}.u8", np.uint8).reshape(-1, m.size, m.size, 3)
        labels = np.fromfile(at / f"{name}.labels", np.uint8).astype(np.int64)
        return torch.from_numpy(images).to(DEVICE), torch.from_numpy(labels).to(DEVICE)

    train, held_out = part("train"), part(args.measure)
    per_epoch = len(train[1]) // args.dumped
    classes = int(train[1].max()) + 1
    warming = train[0][: WARM_PASSES * per_epoch]
    if at_half:
        train, held_out = [(halved(images), labels) for images, labels in (train, held_out)]
    return Job(method, dataset, seed, classes, per_epoch * m.epochs // 32, m.lr, warming, train, held_out)


def score(probabilities, mirrored, labels):
    """Accuracy of the ensemble, of its branches, and of the mean over an image and its mirror image, in percent, and the
    negative log-likelihood."""
    right = lambda p: 100 * (p.argmax(-1) == labels).float().mean().item()
    ensemble = probabilities.mean(0)
    nll = -ensemble.gather(1, labels[:, None]).clamp_min(1e-12).log().mean().item()
    both = right(ensemble + mirrored.mean(0))
    branches = statistics.mean(map(right, probabilities))
    return {"accuracy": right(ensemble), "branches": branches, "mirrored": both, "nll": nll}


def run(method, state, args, log):
    m = METHODS[method]
    done, results = defaultdict(list), []
    for at_half, branches in m.parts():
        jobs = [load(args, method, d, s, at_half) for d in args.datasets for s in args.seeds]
        images, steps = max(len(j.train[0]) for j in jobs), max(j.steps for j in jobs)
        own = state if m.whole else network.some_branches(state, branches)
        size = m.size // 2 if at_half else m.size
        slots = [Slot(own, size, images, steps, m.stem_rate, args.bf16) for _ in range(min(m.slots, len(jobs)))]
        for job, (*probabilities, loss) in train_all(slots, jobs, args.deadline):
            parts = done[job.dataset, job.seed]
            parts.append((*probabilities, loss))
            if len(parts) < len(m.parts()):
                continue
            plain, mirrored = (torch.cat([part[i] for part in parts]) for i in (0, 1))
            result = {"method": method, "measure": args.measure, "dataset": job.dataset, "seed": job.seed}
            result |= {"images": len(job.held_out[1]), "training_loss": statistics.mean(part[2] for part in parts)}
            result |= score(plain, mirrored, job.held_out[1])
            results.append(result)
            log.write(json.dumps(result) + "\n")
            log.flush()
    return results


def table(results):
    """Means over the seeds, a row per dataset."""
    methods = list(dict.fromkeys(r["method"] for r in results))
    cells = defaultdict(list)
    for r in results:
        for dataset in (r["dataset"], "mean"):
            cells[dataset, r["method"]].append(r)
    mean = lambda key, value: statistics.mean(r[value] for r in cells[key])
    lines = [["", *(f"{m} ({len(cells['mean', m])})" for m in methods)]]
    for dataset in [*sorted({r["dataset"] for r in results}), "mean"]:
        row = [f"{mean((dataset, m), 'accuracy'):.1f}" if cells[dataset, m] else "" for m in methods]
        lines.append([dataset, *row])
    for value in ("branches", "mirrored", "nll", "training_loss"):
        lines.append([value, *(f"{mean(('mean', m), value):.3f}" for m in methods)])
    return "\n".join("".join(f"{cell:>18}" for cell in line) for line in lines)


def main():
    args = arguments()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    rrr, program = programs(args)
    dump(program, args)
    results = []
    with (args.out / "results.jsonl").open("a") as log:
        for method in args.methods:
            start, m = time.time(), METHODS[method]
            state = network.read(args.backbone) if m.whole else reduced(rrr, m.branches, args)
            results += run(method, state, args, log)
            print(f"{method}: {time.time() - start:.0f} s", file=sys.stderr, flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
