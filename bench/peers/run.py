#!/usr/bin/env python3
"""Runs PyTorch and rrr-nn on the same work, in turns, and prints a table of medians and ratios.

    bench/peers/run.py [--rounds 5] [--threads 2] [--work forward,train_step,published_step] [--json FILE]

Makes a virtual environment beside this file on its first run and installs the pinned PyTorch into it (about 3 GB with
the dependencies of the default Linux wheels); --python takes an interpreter that already has it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
REQUIREMENTS = ["torch==2.9.1", "numpy"]
# What PyTorch is asked for, and what of ours it is compared with.
OURS = {"forward": "forward", "train_step": "train", "published_step": "train", "full": "full"}
COUNTERPART = {"published_step": "train_step"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns; each side is run once per turn (default 5)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements per side and turn (default 3)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", default="forward,train_step,published_step", help=f"of {', '.join(OURS)}")
    parser.add_argument("--python", help="an interpreter with PyTorch, instead of the virtual environment")
    parser.add_argument("--json", type=Path, help="append every measurement to this file, one object per line")
    return parser.parse_args()


def environment():
    folder = HERE / ".venv"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    ready = folder / "ready"
    if not ready.exists() or ready.read_text().split() != REQUIREMENTS:
        print(f"installing {' '.join(REQUIREMENTS)} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        ready.write_text("\n".join(REQUIREMENTS))
    return str(python)


def build():
    command = ["cargo", "build", "--release", "-p", "rrr-nn", "--example", "step_bench", "--message-format=json"]
    messages = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    artifacts = (json.loads(line) for line in messages.splitlines())
    return next(a["executable"] for a in artifacts if a.get("executable"))


def measure(command):
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def main():
    args = arguments()
    works = args.work.split(",")
    for work in works:
        if work not in OURS:
            sys.exit(f"unknown work {work}: use {', '.join(OURS)}")
    common = ["--threads", str(args.threads), "--rounds", str(args.repeats)]
    peer = [args.python or environment(), str(HERE / "pytorch_step.py"), *common]
    ours = [build(), *common, "--json"]

    times = {}  # (peer, work, batch) -> [ms of each turn]
    for turn in range(args.rounds):
        print(f"turn {turn + 1} of {args.rounds}", file=sys.stderr)
        lines = []
        for work in works:
            lines += measure([*peer, "--work", work])
            # One measurement of ours serves both of the works that are compared with it.
            if COUNTERPART.get(work) not in works:
                lines += [{"peer": "rrr-nn", **line} for line in measure([*ours, "--work", OURS[work]])]
        for line in lines:
            times.setdefault((line["peer"], line["work"], line["batch"]), []).append(line["ms"])
        if args.json:
            with args.json.open("a") as file:
                file.writelines(json.dumps({"turn": turn, **line}) + "\n" for line in lines)

    print(f"{'work':<16}{'batch':>6}{'PyTorch ms':>12}{'rrr-nn ms':>12}{'ratio':>8}")
    for (name, work, batch), theirs in times.items():
        if name != "pytorch":
            continue
        mine = times[("rrr-nn", COUNTERPART.get(work, work), batch)]
        # The two sides of a turn ran in the same minutes: the median of their ratios, not the ratio of medians.
        ratio = statistics.median(a / b for a, b in zip(theirs, mine))
        theirs, mine = statistics.median(theirs), statistics.median(mine)
        print(f"{work:<16}{batch:>6}{theirs:>12.2f}{mine:>12.2f}{ratio:>7.2f}x")


if __name__ == "__main__":
    main()
