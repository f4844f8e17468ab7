"""Writes metrics.json: small predictions and what scikit-learn and NumPy measure on them.

    pip install scikit-learn==1.9.1
    python make.py
"""

import json
from pathlib import Path

import numpy as np
import scipy
import sklearn
from sklearn import metrics as sk

BINS = 15


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def ece(probs, labels):
    """Guo et al. 2017: bins (low, high], weighted |accuracy - confidence|."""
    confidence = probs.max(1)
    correct = probs.argmax(1) == labels
    edges = np.linspace(0, 1, BINS + 1)
    total = 0.0
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


def entropy(p):
    return scipy.stats.entropy(p, axis=-1)


def case(name, seed, branches, images, classes, sharpness, absent=(), logit_mean=False):
    rng = np.random.default_rng(seed)
    present = [c for c in range(classes) if c not in absent]
    labels = rng.choice(present, size=images)
    logits = rng.normal(size=(branches, images, classes)) * sharpness
    shared = rng.normal(size=(images, classes)) * sharpness
    shared[np.arange(images), labels] += 1.5 * sharpness
    logits = (logits + shared).astype(np.float32)
    probs = softmax(logits)
    combined = softmax(logits.mean(0)) if logit_mean else probs.mean(0, dtype=np.float64).astype(np.float32)

    predicted = combined.argmax(1)
    per_branch = probs.argmax(2)
    every = np.arange(classes)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=np.nan
    )
    pairs = [(i, j) for i in range(branches) for j in range(i + 1, branches)]
    interval = scipy.stats.binomtest(int((predicted == labels).sum()), images).proportion_ci(method="wilson")
    exact = combined.astype(np.float64)
    nan_to_none = lambda values: [None if np.isnan(v) else float(v) for v in values]
    return {
        "name": name,
        "branches": branches,
        "classes": classes,
        "labels": labels.tolist(),
        "probs": [float(f"{p:.9g}") for p in probs.ravel()],
        "logits": [float(f"{p:.9g}") for p in logits.ravel()] if logit_mean else None,
        "expected": {
            "accuracy": sk.accuracy_score(labels, predicted),
            "interval": [interval.low, interval.high],
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted)
            if set(predicted) <= set(labels)
            else float(np.nanmean(recall)),
            "macro_f1": sk.f1_score(labels, predicted, average="macro"),
            "top5_accuracy": sk.top_k_accuracy_score(labels, combined, k=5, labels=every) if classes > 5 else 1.0,
            "nll": sk.log_loss(labels, combined, labels=every),
            "brier": sk.brier_score_loss(labels, exact / exact.sum(1, keepdims=True), labels=every, scale_by_half=False),
            "ece": ece(exact, labels),
            "precision": nan_to_none(precision),
            "recall": nan_to_none(recall),
            "f1": nan_to_none(f1),
            "support": support.tolist(),
            "confusion": sk.confusion_matrix(labels, predicted, labels=every).tolist(),
            "branch_accuracy": [sk.accuracy_score(labels, p) for p in per_branch],
            "disagreement": float(np.mean([sk.zero_one_loss(per_branch[i], per_branch[j]) for i, j in pairs]))
            if pairs
            else None,
            "entropy": entropy(exact).tolist(),
            "mutual_information": np.maximum(entropy(exact) - entropy(probs.astype(np.float64)).mean(0), 0).tolist(),
        },
    }


cases = [
    case("eight branches", 1, 8, 40, 6, 1.0),
    case("single branch", 2, 1, 60, 10, 1.5),
    case("class without images", 3, 3, 30, 7, 1.0, absent=(2, 5)),
    case("confident and often wrong", 4, 2, 40, 12, 9.0),
    case("two classes", 5, 4, 25, 2, 0.7),
    case("mean of logits", 6, 4, 30, 8, 1.0, logit_mean=True),
]
out = {"scikit-learn": sklearn.__version__, "numpy": np.__version__, "scipy": scipy.__version__, "cases": cases}
path = Path(__file__).with_name("metrics.json")
path.write_text(json.dumps(out, separators=(",", ":")) + "\n")
