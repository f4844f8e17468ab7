"""The published augmentation in albumentations on OpenCV: two of twelve operations per image, over and over the images
of a dataset that are held decoded in memory. FOLDER is a Meta-Album dataset.

Variants: `threads` shares the images between threads of one process (OpenCV lets go of Python's lock), `processes`
between forked workers that write batches into shared memory. The times printed are milliseconds per image.
"""

from harness import arguments

ARGS = arguments()

import json  # noqa: E402
import math  # noqa: E402
import multiprocessing  # noqa: E402
import time  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402

import albumentations as A  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402

SIZE, EPOCHS = 128, 5


def one_of_twelve():
    noise = (math.sqrt(10) / 255, math.sqrt(50) / 255)
    shift = {"x": (-0.1, 0.1), "y": (-0.1, 0.1)}
    reflected = cv2.BORDER_REFLECT_101
    return A.OneOf(
        [
            A.Affine(shear={"x": (10, 10), "y": (10, 10)}, p=1),
            A.Affine(translate_percent=shift, scale=(0.99, 1.01), rotate=(-30, 30), border_mode=reflected, p=1),
            A.RGBShift(15, 15, 15, p=1),
            A.RandomBrightnessContrast(0.2, 0.2, brightness_by_max=True, p=1),
            A.Posterize(4, p=1),
            A.MotionBlur((3, 7), p=1),
            A.ImageCompression(quality_range=(99, 100), p=1),
            A.GaussNoise(std_range=noise, p=1),
            A.Equalize(by_channels=True, p=1),
            A.Solarize((128 / 255, 128 / 255), p=1),
            A.Sharpen((0.2, 0.5), (0.5, 1.0), p=1),
            A.InvertImg(p=1),
        ],
        p=1,
    )


def decoded(folder):
    """All images, `[n, 128, 128, 3]`."""
    read = lambda path: cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    resize = lambda image: cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return np.stack([resize(read(path)) for path in sorted((folder / "images").iterdir())])


IMAGES = decoded(ARGS.folder)
PIPELINE = A.Compose([one_of_twelve(), one_of_twelve()])
# One thread per worker: the workers are the threads.
cv2.setNumThreads(1)


def batches(rng):
    order = rng.permutation(len(IMAGES))
    return [order[i : i + ARGS.batch] for i in range(0, len(order), ARGS.batch)]


def fill(out, indices, pipeline):
    for to, i in zip(out, indices):
        to[:] = pipeline(image=IMAGES[i])["image"]


def threads():
    """A function that makes an epoch, and one that ends the workers."""
    pool = ThreadPoolExecutor(ARGS.threads)
    pipelines = [A.Compose([one_of_twelve(), one_of_twelve()]) for _ in range(ARGS.threads)]

    def epoch(rng):
        for indices in batches(rng):
            out = np.empty((len(indices), SIZE, SIZE, 3), np.uint8)
            parts = range(ARGS.threads)
            jobs = [pool.submit(fill, out[k :: ARGS.threads], indices[k :: ARGS.threads], pipelines[k]) for k in parts]
            for job in jobs:
                job.result()

    return epoch, pool.shutdown


SHARED = multiprocessing.RawArray("B", 64 * ARGS.batch * SIZE * SIZE * 3)


def fill_shared(job):
    slot, indices = job
    out = np.frombuffer(SHARED, np.uint8).reshape(-1, ARGS.batch, SIZE, SIZE, 3)
    fill(out[slot], indices, PIPELINE)
    return slot


def processes():
    pool = multiprocessing.get_context("fork").Pool(ARGS.threads, cv2.setNumThreads, (1,))

    def epoch(rng):
        for _ in pool.imap(fill_shared, enumerate(batches(rng))):
            pass

    return epoch, pool.terminate


def main():
    epoch, end = {"threads": threads, "processes": processes}[ARGS.variant]()
    rng = np.random.default_rng(0)
    epoch(rng)
    times = []
    for _ in range(ARGS.repeats):
        start = time.perf_counter()
        for _ in range(EPOCHS):
            epoch(rng)
        times.append((time.perf_counter() - start) * 1e3 / (EPOCHS * len(IMAGES)))
    end()
    version = f"{A.__version__}, OpenCV {cv2.__version__}"
    print(json.dumps({"times": times, "version": version, "difference": None}))


if __name__ == "__main__":
    main()
