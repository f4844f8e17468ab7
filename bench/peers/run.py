#!/usr/bin/env python3
"""Runs rrrnet and other engines on the same work, in turns, and prints tables of medians and ratios.

    bench/peers/run.py [--work forward,train_step,published_step] [--network paper] [--size 128] [--batch 1,32]
                       [--rounds 5] [--threads 2] [--engines NAME,...] [--precisions NAME,...] [--json FILE] [--markdown FILE]
                       [--table FILE]

Makes a virtual environment beside this file on its first run and installs the pinned engines into it (about 6 GB with
what PyTorch's default Linux wheels bring), and builds the Rust engines in `rust/`, which takes minutes. An engine that
is missing or cannot do a work is named with the reason, and the others go on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from results import Results, markdown_table, table, text_table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NETWORKS = ["paper", "default"]
WORKS = ["forward", "train_step", "published_step", "full", "augment"]
# Engines in `rust/` and their packages.
RUST = {"tract": "tract-onnx", "rten": "rten", "Burn": "burn"}
# What is stopped as hopeless, in seconds; the first torch.compile on two cores takes minutes.
TIMEOUT = 600


@dataclass(frozen=True)
class Engine:
    """One way to do one work."""

    name: str
    precision: str
    command: tuple
    works: tuple = ("forward",)
    # Why it cannot run here, if it cannot.
    reason: str = ""
    # rrrnet's own examples print a format of their own.
    ours: bool = False


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="forward,train_step,published_step", help=f"of {', '.join(WORKS)}")
    parser.add_argument("--network", default="paper", choices=NETWORKS, help="the paper's, or of the default recipe")
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels (default 128)")
    parser.add_argument("--batch", default="1,32", help="batch sizes of `forward` (default 1,32)")
    parser.add_argument("--rounds", type=int, default=5, help="turns; each engine runs once per turn (default 5)")
    parser.add_argument("--repeats", type=int, help="timed calls per engine and turn (default: by work)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", help="only those whose name contains one of these, comma-separated")
    parser.add_argument("--precisions", help="only these, of f32, bf16, int8 and u8, comma-separated")
    parser.add_argument("--compile", action="store_true", help="also try torch.compile (minutes the first time)")
    parser.add_argument("--python", help="an interpreter with the packages, instead of the virtual environment")
    parser.add_argument("--json", type=Path, help="append every measurement to this file, one object per line")
    parser.add_argument("--markdown", type=Path, help="append the table in Markdown to this file")
    parser.add_argument("--table", type=Path, help="measure nothing, only make the table of such a --json file")
    args = parser.parse_args()
    args.works = args.work.split(",")
    for work in args.works:
        if work not in WORKS:
            parser.error(f"unknown work {work}: use {', '.join(WORKS)}")
    args.folder = HERE / ".network" / f"{args.network}-{args.size}"
    os.environ |= {"PEERS_NETWORK": args.network, "PEERS_SIZE": str(args.size)}
    args.batches = [int(n) for n in args.batch.split(",")]
    return args


def say(text):
    print(text, file=sys.stderr, flush=True)


def environment():
    """The interpreter of the virtual environment, made if it is not what requirements.txt asks for."""
    folder = HERE / ".venv"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = (HERE / "requirements.txt").read_text()
    ready = folder / "ready"
    if not ready.exists() or ready.read_text() != wanted:
        say(f"installing {HERE / 'requirements.txt'} into {folder}")
        venv.create(folder, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        # One after another, so that an engine without a wheel for this machine costs no other one.
        for line in wanted.splitlines():
            if line and not line.startswith("#") and subprocess.run([*pip, line]).returncode:
                say(f"cannot install {line}: what needs it will be missing")
        ready.write_text(wanted)
    return str(python)


def cpu_flags():
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    lines = (line.split(":", 1) for line in text.splitlines() if line.startswith(("flags", "Features")))
    return set(next(lines, ["", ""])[1].split())


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown processor"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def cargo(folder, *args):
    """Builds with cargo and returns the path of the program, or why there is none."""
    command = ["cargo", "build", "--release", "--locked", *args, "--message-format=json"]
    built = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    if built.returncode:
        return None, f"`{' '.join(command)}` failed"
    artifacts = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
    return [a["executable"] for a in artifacts if a.get("executable")][-1], ""


def engines(args, python):
    """Every engine that is asked for, in the order of the tables."""
    all_engines = []
    flags = cpu_flags()
    bf16 = "" if flags & {"avx512_bf16", "amx_bf16", "bf16"} else "this CPU has no bf16 instructions"

    native = flags & {"avx512_bf16", "amx_bf16"}
    software = "" if native else "in software on this CPU, which has neither AMX nor AVX-512 BF16"

    if set(args.works) - {"augment"}:
        step_bench, reason = cargo(ROOT, "-p", "rrr-nn", "--example", "step_bench")
        for precision in ["f32", "bf16", "int8"]:
            works = ("forward",) if precision == "int8" else ("forward", "train_step", "published_step", "full")
            slow = software if precision == "bf16" else ""
            all_engines.append(Engine("rrrnet", precision, (step_bench,), works, reason or slow, ours=True))
    if "augment" in args.works:
        loader, reason = cargo(ROOT, "-p", "rrr-data", "--example", "loader_bench")
        all_engines.append(Engine("rrrnet", "u8", (loader,), ("augment",), reason, ours=True))

    def script(name, script, variant, precision, works=("forward",), reason=""):
        all_engines.append(Engine(name, precision, (python, str(HERE / script), variant), works, reason))

    steps = ("forward", "train_step", "full")
    script("PyTorch", "peer_pytorch.py", "f32", "f32", (*steps, "published_step"))
    script("PyTorch, channels last", "peer_pytorch.py", "channels_last", "f32", steps)
    script("PyTorch, channels last", "peer_pytorch.py", "channels_last+bf16", "bf16", steps, bf16)
    if args.compile:
        script("PyTorch, compiled", "peer_pytorch.py", "compile", "f32", steps[:2])
    script("ONNX Runtime", "peer_onnxruntime.py", "f32", "f32")
    script("OpenVINO", "peer_openvino.py", "f32", "f32")
    script("OpenVINO", "peer_openvino.py", "bf16", "bf16", reason=bf16)
    script("OpenVINO, NNCF", "peer_openvino.py", "int8", "int8")
    script("albumentations, processes", "peer_albumentations.py", "processes", "u8", ("augment",))
    script("albumentations, threads", "peer_albumentations.py", "threads", "u8", ("augment",))

    chosen = [e for e in all_engines if wanted(e, args)]
    if "forward" in args.works:
        for name in RUST:
            feature = name.lower()
            engine = Engine(name, "f32", (), ("forward",))
            if wanted(engine, args):
                # A build of its own each, so that one that does not build costs no other one.
                target = str(HERE / "rust" / "target" / feature)
                program, reason = cargo(HERE / "rust", "--features", feature, "--target-dir", target)
                chosen.append(Engine(name, "f32", (program, feature), ("forward",), reason))
    return chosen


def wanted(engine, args):
    if not set(engine.works) & set(args.works):
        return False
    if args.precisions and engine.precision not in args.precisions.split(","):
        return False
    return engine.ours or not args.engines or any(n.lower() in engine.name.lower() for n in args.engines.split(","))


def repeats(args, work, batch):
    usual = {"forward": 40 if batch == 1 else 5, "augment": 3, "full": 1}
    return args.repeats or usual.get(work, 2)


def run_ours(engine, work, batch, args):
    """rrrnet's examples: `published_step` is compared with a step on one shared batch."""
    if work == "augment":
        command = [*engine.command, str(ROOT / "data" / "CLP_Micro"), str(repeats(args, work, batch)), str(args.threads)]
    else:
        int8 = engine.precision == "int8"
        name = "int8" if int8 else {"train_step": "train", "published_step": "train"}.get(work, work)
        command = [*engine.command, "--json", "--work", name, "--batch", str(batch), "--threads", str(args.threads)]
        command += ["--network", args.network, "--size", str(args.size)]
        # It makes ten calls a round with one image.
        rounds = repeats(args, work, batch) // (10 if work == "forward" and batch == 1 else 1)
        command += ["--rounds", str(max(rounds, 1))]
        if not int8:
            command += ["--precision", engine.precision]
    lines = [json.loads(line) for line in output_of(command).splitlines()]
    line = next(line for line in lines if line.get("batch") == batch)
    return {"ms": line["ms"], "version": "this checkout", "difference": None}


def run_peer(engine, work, batch, args):
    numbers = [str(batch), str(args.threads), str(repeats(args, work, batch))]
    rust = engine.name in RUST
    if rust:
        command = [*engine.command, str(args.folder), *numbers]
    else:
        folder = ROOT / "data" / "CLP_Micro" if work == "augment" else args.folder
        command = [*engine.command, work, *numbers, str(folder)]
    result = json.loads(output_of(command).splitlines()[-1])
    result["ms"] = statistics.median(result.pop("times"))
    if rust:
        result["version"] = locked(RUST[engine.name])
    return result


def locked(package):
    """The version of a package in the lock file of `rust/`."""
    lines = (HERE / "rust" / "Cargo.lock").read_text().splitlines()
    return lines[lines.index(f'name = "{package}"') + 1].split('"')[1]


def output_of(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise RuntimeError(said[-1].strip() if said else f"exit status {done.returncode}")
    return done.stdout


def batches(args, work):
    return args.batches if work == "forward" else [32]


def measure(args, chosen, results, keep):
    """Runs every engine once per turn; `keep` gets each line that `results` does."""
    for turn in range(args.rounds):
        for work in args.works:
            for batch in batches(args, work):
                for engine in chosen:
                    line = {"turn": turn, "engine": engine.name, "precision": engine.precision, "work": work}
                    line |= {"batch": batch, "threads": args.threads, "cpu": cpu_name()}
                    line |= {"network": args.network, "size": args.size}
                    if work not in engine.works or (engine.name, engine.precision, work, batch) in results.missing:
                        continue
                    say(f"turn {turn + 1} of {args.rounds}: {work}, batch {batch}, {engine.name} {engine.precision}")
                    try:
                        if engine.reason:
                            raise RuntimeError(engine.reason)
                        line |= (run_ours if engine.ours else run_peer)(engine, work, batch, args)
                    except (RuntimeError, OSError, ValueError, StopIteration, subprocess.TimeoutExpired) as e:
                        line["reason"] = str(e).replace("|", "/")
                        say(f"  left out: {line['reason']}")
                    results.add(line)
                    keep(line)


def main():
    args = arguments()
    results = Results()
    if args.table:
        lines = [json.loads(line) for line in args.table.read_text().splitlines()]
        for line in lines:
            results.add(line)
        cpu, threads, network, size = (lines[0][key] for key in ["cpu", "threads", "network", "size"])
    else:
        cpu, threads, network, size = cpu_name(), args.threads, args.network, args.size
        python = args.python or environment()
        chosen = engines(args, python)
        if "forward" in args.works:
            say("exporting the network")
            export = [python, str(HERE / "export.py"), str(args.folder), *map(str, args.batches)]
            subprocess.run(export, check=True, stderr=subprocess.DEVNULL)

        def keep(line):
            if args.json:
                with args.json.open("a") as file:
                    file.write(json.dumps(line) + "\n")

        measure(args, chosen, results, keep)

    rows = table(results)
    heading = f"the {network} network at {size}x{size}, {cpu}, {threads} threads, median of {results.turns()} turns"
    print("\n".join([heading, *text_table(rows)]))
    if args.markdown:
        with args.markdown.open("a") as file:
            file.write("\n".join([heading + ".", "", *markdown_table(rows), "", ""]))


if __name__ == "__main__":
    main()
