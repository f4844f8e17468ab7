"""Writes golden.json and golden.bin: outputs of albumentations 1.2.0 on OpenCV 4.6.0 for tests/golden.rs.

    pip install albumentations==1.2.0 opencv-python-headless==4.6.0.66 "numpy<2"
    python make.py

Every case is an operation, its parameters, its input and where its output lies in golden.bin.
"""

import json
import math
import pathlib

import albumentations.augmentations.functional as F
import albumentations.augmentations.geometric.functional as G
import cv2
import numpy as np
from skimage.transform import ProjectiveTransform

HERE = pathlib.Path(__file__).parent
SAMPLE = HERE / "../../../../data/CLP_Micro/images/CLP_0001.jpg"
rng = np.random.default_rng(20231001)
blob = bytearray()
cases = []


def store(array):
    at = len(blob)
    blob.extend(np.ascontiguousarray(array).tobytes())
    return at


photo = cv2.cvtColor(cv2.imread(str(SAMPLE)), cv2.COLOR_BGR2RGB)[30:78, 40:88].copy()
noise = rng.integers(0, 256, (37, 37, 3), dtype=np.uint8)
flat = np.full((16, 16, 3), (255, 7, 0), dtype=np.uint8)
inputs = {"photo": photo, "noise": noise, "flat": flat}
images = {k: {"at": store(v), "width": v.shape[1], "height": v.shape[0]} for k, v in inputs.items()}


def case(op, params, f, names=("photo", "noise", "flat")):
    for name in names:
        out = f(inputs[name].copy())
        assert out.dtype == np.uint8
        cases.append({"op": op, "params": params, "input": name, "at": store(out)})


def skimage_0_19_shear(angle):
    """AffineTransform(shear=angle) of scikit-image 0.19, the version of albumentations 1.2.0's day."""
    return np.array([[1, -math.sin(angle), 0], [0, math.cos(angle), 0], [0, 0, 1]])


def rotation(angle):
    return np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])


def shift(by):
    return np.array([[1, 0, by], [0, 1, by], [0, 0, 1.0]])


def shear(image, degrees):
    """albumentations.Affine(shear=(degrees, degrees)) step by step."""
    side = image.shape[0]
    angle = math.radians(degrees)
    steps = [
        shift(-(side / 2 - 0.5)),
        rotation(-np.pi / 2),
        skimage_0_19_shear(angle),
        rotation(np.pi / 2),
        skimage_0_19_shear(angle),
        shift(side / 2 - 0.5),
    ]
    matrix = np.eye(3)
    for step in steps:
        matrix = step @ matrix
    return G.warp_affine(
        image, ProjectiveTransform(matrix=matrix), cv2.INTER_LINEAR, 0, cv2.BORDER_CONSTANT, image.shape
    )


case("shear", [10.0], lambda x: shear(x, 10.0))
for p in [(30.0, 1.01, 0.1, -0.1), (-17.3, 0.99, -0.031, 0.077), (0.0, 1.0, 0.0, 0.0), (90.0, 1.5, 0.3, 0.2)]:
    case("shift_scale_rotate", p, lambda x: G.shift_scale_rotate(x, *p))
for p in [(14.99, -14.99, 0.0), (-3.7, 7.2, 11.01), (5.5, 5.5, 5.5)]:
    case("rgb_shift", p, lambda x: F.shift_rgb(x, *p))
for p in [(1.2, 0.2), (0.8, -0.2), (1.0731, -0.0417), (0.93, 0.0), (1.0, 0.1)]:
    case("brightness_contrast", p, lambda x: F.brightness_contrast_adjust(x, p[0], p[1], True))
for bits in (4, 1, 7):
    case("posterize", [bits], lambda x: F.posterize(x, bits))
for quality in (99, 100, 75):
    case("jpeg", [quality], lambda x: F.image_compression(x, quality, ".jpg"))
for sigma in (10**0.5, 50**0.5):
    for name in inputs:
        gauss = rng.normal(0, sigma, inputs[name].shape)
        levels = np.floor(gauss).astype(np.int8)
        out = F.gauss_noise(inputs[name].copy(), gauss)
        cases.append({"op": "noise", "params": [store(levels)], "input": name, "at": store(out)})
case("equalize", [], F.equalize)
case("solarize", [128], lambda x: F.solarize(x, 128))
case("invert", [], F.invert)


def sharpening(alpha, lightness):
    """albumentations.Sharpen's matrix."""
    nochange = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=np.float32)
    effect = np.array([[-1, -1, -1], [-1, 8 + lightness, -1], [-1, -1, -1]], dtype=np.float32)
    return (1 - alpha) * nochange + alpha * effect


for p in [(0.2, 0.5), (0.5, 1.0), (0.3137, 0.777)]:
    case("sharpen", p, lambda x: F.convolve(x, sharpening(*p)))


def line(side, x0, y0, x1, y1):
    kernel = np.zeros((side, side), dtype=np.uint8)
    cv2.line(kernel, (x0, y0), (x1, y1), 1, thickness=1)
    return kernel


for p in [(3, 0, 0, 2, 2), (5, 0, 2, 4, 1), (7, 6, 0, 0, 6), (7, 1, 0, 3, 6), (7, 0, 3, 5, 3), (5, 1, 1, 2, 1), (5, 4, 0, 4, 3)]:
    kernel = line(*p)
    case("motion_blur", p, lambda x: F.convolve(x, kernel.astype(np.float32) / np.sum(kernel)))

# Every line of every kernel, as bit masks.
masks = []
for side in (3, 5, 7):
    for x0, y0, x1, y1 in np.ndindex(side, side, side, side):
        bits = line(side, x0, y0, x1, y1).ravel()
        masks.append(sum(1 << i for i, bit in enumerate(bits) if bit))
lines = store(np.array(masks, dtype="<u8"))

for height, width, size in [(37, 37, 24), (37, 37, 53), (48, 48, 24), (48, 48, 31), (20, 37, 24)]:
    name = "photo" if width == 48 else "noise"
    image = inputs[name][:height].copy()
    out = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    cases.append({"op": "resize", "params": [height, size], "input": name, "at": store(out)})

(HERE / "golden.bin").write_bytes(blob)
text = ",\n".join(json.dumps(c) for c in cases)
(HERE / "golden.json").write_text(
    '{"images": ' + json.dumps(images) + ',\n"lines": ' + str(lines) + ',\n"cases": [\n' + text + "\n]}\n"
)
print(len(cases), "cases,", len(blob), "bytes")
