#!/usr/bin/env python3
"""Makes stats.json: what SciPy and scikit-posthocs say, for tests/stats.rs to reproduce.

    pip install scipy scikit-posthocs && python make.py
"""

import json
import warnings
from pathlib import Path

import numpy as np
import scipy
import scikit_posthocs as posthocs
from scipy import stats
from statsmodels.stats.multitest import multipletests  # comes with scikit-posthocs

warnings.filterwarnings("ignore")
rng = np.random.default_rng(0)


def scores(datasets, methods, spread, digits):
    quality = rng.normal(0.7, 0.1, (datasets, 1)) + np.linspace(0, spread, methods)
    return np.round(quality + rng.normal(0, 0.03, (datasets, methods)), digits)


def friedman(x):
    n, k = x.shape
    chi2, p = stats.friedmanchisquare(*x.T)
    f = (n - 1) * chi2 / (n * (k - 1) - chi2)
    ranks = stats.rankdata(-x, axis=1).mean(axis=0)
    q = stats.studentized_range.ppf(0.95, k, np.inf)
    return {
        "scores": x.tolist(),
        "ranks": ranks.tolist(),
        "chi2": chi2,
        "p": p,
        "f": f,
        "f_p": stats.f.sf(f, k - 1, (k - 1) * (n - 1)),
        "critical_difference": q / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n)),
        "nemenyi": posthocs.posthoc_nemenyi_friedman(x).to_numpy().tolist(),
    }


def wilcoxon(a, b, method):
    d = np.asarray(a) - np.asarray(b)
    r = stats.wilcoxon(a, b, zero_method="wilcox", correction=False, method=method)
    return {"a": list(a), "b": list(b), "n": int((d != 0).sum()), "statistic": r.statistic, "p": r.pvalue,
            "exact": method == "exact"}


def pair(n, grid, shift=0.02):
    """Two columns of multiples of 1 / grid, a power of two: equal differences are then equal to the last bit."""
    a = np.round(rng.normal(0.7, 0.1, n) * grid) / grid
    return a.tolist(), (np.round((a - rng.normal(shift, 0.05, n)) * grid) / grid).tolist()


def bootstrap(x):
    r = stats.bootstrap((x,), np.mean, n_resamples=100_000, method="BCa", rng=np.random.default_rng(1))
    return {"values": x.tolist(), "mean": x.mean(), "low": r.confidence_interval.low, "high": r.confidence_interval.high}


p_values = [[0.01, 0.04, 0.03, 0.005], [0.5, 0.2, 0.9], [1e-8, 0.02, 0.02, 0.3, 0.04]]
cases = {
    "versions": {"scipy": scipy.__version__, "scikit_posthocs": posthocs.__version__, "numpy": np.__version__},
    "friedman": [
        friedman(scores(n, k, spread, digits))
        for n, k, spread, digits in [(9, 4, 0.06, 9), (40, 4, 0.01, 3), (9, 4, 0.02, 2), (5, 3, 0.0, 1), (30, 8, 0.05, 4)]
    ],
    "wilcoxon": [wilcoxon(*pair(n, 2**40), "exact") for n in (4, 9, 13, 40, 50)]
    + [wilcoxon(*pair(n, grid), "asymptotic") for n, grid in ((9, 64), (20, 64), (40, 16), (60, 2**40))],
    "holm": [{"p": p, "adjusted": multipletests(p, method="holm")[1].tolist()} for p in p_values],
    "bootstrap": [bootstrap(rng.normal(0.02, 0.05, 9)), bootstrap(rng.exponential(0.05, 40) - 0.02)],
}
path = Path(__file__).with_name("stats.json")
path.write_text(json.dumps(cases, indent=1) + "\n")
print(path)
