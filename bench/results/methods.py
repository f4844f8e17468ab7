#!/usr/bin/env python3
"""Trains methods A, B, C and D on several datasets and seeds, and writes a Markdown table of test accuracies.

    bench/results/methods.py --album DIR [--datasets CHS_Micro,...] [--seeds 1,2] [--epochs 6] [--size 64] [--out FILE]

A finished training is not run again; its result stays in --runs. CLP_Micro and FSH_Micro are in data/ of this
repository (--album data). Needs `rrr` on the path, or --rrr FILE.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

METHODS = {"probe": "A linear probe", "finetune": "B fine-tuning", "reduced": "C reduced", "rrr": "D RRR-Net"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--album", type=Path, required=True, help="folder of Meta-Album datasets")
    parser.add_argument("--datasets", default="CHS_Micro,AER_Micro,FSH_Micro,TXP_Micro")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--runs", type=Path, default=Path("runs/methods"))
    parser.add_argument("--out", type=Path, help="the table; standard output by default")
    parser.add_argument("--rrr", default=shutil.which("rrr"), help="the program")
    parser.add_argument("--table-only", action="store_true", help="train nothing; a table of what is there")
    return parser.parse_args()


def train(args, dataset, method, seed):
    run = args.runs / f"{dataset}-{method}-{args.size}px-{args.epochs}-{seed}"
    result = run.with_suffix(".json")
    if result.exists():
        return json.loads(result.read_text())
    if args.table_only:
        return None
    print(f"{dataset} {method} seed {seed}", file=sys.stderr, flush=True)
    command = [args.rrr, "train", args.album / dataset, "--out", run, "--overwrite", "--method", method]
    command += ["--epochs", args.epochs, "--image-size", args.size, "--seed", seed, "--format", "json", "--quiet"]
    output = subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    summary = json.loads(output)
    result.write_text(json.dumps(summary))
    # The full networks are large.
    shutil.rmtree(run)
    return summary


def table(args, results):
    methods = args.methods.split(",")
    yield "| dataset | " + " | ".join(METHODS[m] for m in methods) + " |"
    yield "|---" * (len(methods) + 1) + "|"
    columns = {m: [] for m in methods}
    seconds = {m: [] for m in methods}
    for dataset in args.datasets.split(","):
        cells = []
        for method in methods:
            found = [r for (d, m, _), r in results.items() if (d, m) == (dataset, method) and r]
            accuracies = [100 * r["evaluation"]["accuracy"] for r in found]
            columns[method] += accuracies
            seconds[method] += [r["seconds"] for r in found]
            spread = " / ".join(f"{a:.1f}" for a in accuracies)
            cells.append(f"**{statistics.mean(accuracies):.1f}** ({spread})" if accuracies else "-")
        yield f"| {dataset} | " + " | ".join(cells) + " |"
    for name, values, form in [("mean", columns, "{:.1f}"), ("seconds to train", seconds, "{:.0f}")]:
        cells = [form.format(statistics.mean(values[m])) if values[m] else "-" for m in methods]
        yield f"| {name} | " + " | ".join(cells) + " |"


def main():
    args = arguments()
    if not args.rrr:
        sys.exit("error: no `rrr` on the path; give --rrr FILE")
    args.runs.mkdir(parents=True, exist_ok=True)
    results = {}
    for dataset in args.datasets.split(","):
        for seed in args.seeds.split(","):
            for method in args.methods.split(","):
                results[dataset, method, seed] = train(args, dataset, method, seed)
    text = "\n".join(table(args, results)) + "\n"
    if args.out:
        args.out.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
