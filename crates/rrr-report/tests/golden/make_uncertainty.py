"""Writes uncertainty.json: AUROCs of scikit-learn, and temperatures that SciPy's bounded minimiser finds.

    pip install scikit-learn==1.9.1
    python make_uncertainty.py
"""

import json
from pathlib import Path

import numpy as np
import scipy
import sklearn
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss, roc_auc_score


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def auroc(name, negative, positive):
    truth = np.repeat([0, 1], [len(negative), len(positive)])
    return {
        "name": name,
        "negative": list(map(float, negative)),
        "positive": list(map(float, positive)),
        "auroc": float(roc_auc_score(truth, np.concatenate([negative, positive]))),
    }


def temperature(name, seed, branches, images, classes, sharpness, signal, logit_mean=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=images)
    logits = rng.normal(size=(branches, images, classes)) * sharpness
    logits[:, np.arange(images), labels] += signal
    logits = logits.astype(np.float32)
    probs = softmax(logits)
    pooled = (softmax(logits.mean(0)) if logit_mean else probs.mean(0)).astype(np.float64)
    every = np.arange(classes)
    scaled = lambda t: softmax(np.log(pooled) / t)
    nll = lambda ln_t: log_loss(labels, scaled(np.exp(ln_t)), labels=every)
    best = minimize_scalar(nll, bounds=(-np.log(10), np.log(10)), method="bounded", options={"xatol": 1e-9})
    short = lambda values: [float(f"{v:.9g}") for v in values.ravel()]
    t = float(np.exp(best.x))
    return {
        "name": name,
        "branches": branches,
        "classes": classes,
        "labels": labels.tolist(),
        "probs": short(probs),
        "logits": short(logits) if logit_mean else None,
        "temperature": t,
        "nll": [nll(0.0), nll(best.x)],
        "scaled": short(scaled(t)),
    }


rng = np.random.default_rng(7)
out = {
    "scikit-learn": sklearn.__version__,
    "numpy": np.__version__,
    "scipy": scipy.__version__,
    "auroc": [
        auroc("normal", rng.normal(size=30).round(6), rng.normal(1.0, 2.0, size=20).round(6)),
        auroc("many ties", rng.integers(5, size=40), rng.integers(2, 7, size=25)),
        auroc("separated", [0.0, 0.25, 0.5], [0.75, 1.0]),
        auroc("reversed", [3.0, 2.0], [1.0, -1.0, 0.0]),
        auroc("all equal", [1.0, 1.0, 1.0], [1.0, 1.0]),
        auroc("one each", [0.5], [0.25]),
    ],
    "temperature": [
        temperature("overconfident", 1, 1, 40, 5, 4.0, 3.0),
        temperature("underconfident", 2, 4, 30, 3, 1.0, 0.5),
        temperature("mean of logits", 3, 2, 30, 4, 2.0, 1.5, logit_mean=True),
        temperature("two classes", 4, 2, 30, 2, 1.5, 0.8),
    ],
}
path = Path(__file__).with_name("uncertainty.json")
path.write_text(json.dumps(out, separators=(",", ":")) + "\n")
