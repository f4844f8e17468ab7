"""What every peer's script has in common: its command line, and how it times and reports.

    peer_NAME.py VARIANT WORK BATCH THREADS REPEATS FOLDER

prints one JSON object: `times`, the milliseconds of each call after the warm-up, `version`, and for inference
`difference`, the largest one from the probabilities that PyTorch computed from the same network and images.
"""

import argparse
import json
import os
import time
from pathlib import Path

WARM_UP = 2
# Side of the images, see network.py.
SIZE = int(os.environ["PEERS_SIZE"])


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("variant")
    parser.add_argument("work")
    parser.add_argument("batch", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("repeats", type=int)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # read when the libraries are loaded
    return args


def images(args):
    import numpy as np

    return np.fromfile(args.folder / f"input-{args.batch}.f32", np.float32).reshape(args.batch, 3, SIZE, SIZE)


def measure(args, run, version, forward=False):
    """Times `run()`; `forward` says that it returns probabilities to be compared with PyTorch's."""
    for _ in range(WARM_UP):
        output = run()
    times = []
    for _ in range(args.repeats):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    result = {"times": [round(t, 4) for t in times], "version": version, "difference": None}
    if forward:
        import numpy as np

        expected = np.fromfile(args.folder / f"expected-{args.batch}.f32", np.float32)
        result["difference"] = float(np.abs(np.asarray(output, np.float32).ravel() - expected).max())
    print(json.dumps(result))
