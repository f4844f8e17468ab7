"""Measurements of turns, and tables of medians and ratios made from them."""

import statistics


class Results:
    """Milliseconds by (engine, work, batch), one of each turn; and why others are missing."""

    def __init__(self):
        self.times, self.missing, self.versions, self.differences = {}, {}, {}, {}

    def add(self, line):
        key = (line["engine"], line["precision"], line["work"], line["batch"])
        if "reason" in line:
            self.missing[key] = line["reason"]
            return
        self.times.setdefault(key, []).append(line["ms"])
        self.versions[line["engine"]] = line.get("version")
        self.differences[key] = line["difference"]

    def cases(self):
        """(work, batch) in the order they were first measured."""
        return list(dict.fromkeys(key[2:] for key in [*self.times, *self.missing]))

    def turns(self):
        return max(map(len, self.times.values()), default=0)

    def ours(self, precision, work, batch):
        return self.times.get(("rrrnet", precision, work, batch))

    def rows(self, work, batch):
        """(name, precision, ms, ratio to ours in that precision, ratio to our fastest, note) of every engine."""
        keys = [k for k in {**self.times, **self.missing} if k[2:] == (work, batch)]
        ours = [t for k, t in self.times.items() if k[0] == "rrrnet" and k[2:] == (work, batch)]
        fastest = min(ours, key=statistics.median, default=None)
        for key in keys:
            name, precision = key[:2]
            if key not in self.times:
                yield name, precision, None, None, None, self.missing[key]
                continue
            times = self.times[key]
            alike = None if name == "rrrnet" else ratio(times, self.ours(precision, work, batch))
            difference = self.differences[key]
            note = "" if difference is None else f"outputs within {difference:.1e} of PyTorch's"
            best = None if name == "rrrnet" else ratio(times, fastest)
            yield name, precision, statistics.median(times), alike, best, note


def ratio(theirs, ours):
    """The two of a turn ran in the same minutes: the median of their ratios, not the ratio of medians."""
    return statistics.median(a / b for a, b in zip(theirs, ours)) if ours else None


def number(value, suffix=""):
    return "-" if value is None else f"{value:.2f}{suffix}"


def unit(work, ms):
    """Augmentation is told in images per second: its `ms` is per image."""
    return ms if work != "augment" or ms is None else 1e3 / ms


HEAD = ["work", "batch", "engine", "precision", "ms", "ratio", "to our fastest", ""]


def table(results):
    rows = []
    for work, batch in results.cases():
        for name, precision, ms, alike, best, note in results.rows(work, batch):
            label = f"{work} (images/s)" if work == "augment" else work
            version = results.versions.get(name)
            engine = f"{name} {version}" if version and name != "rrrnet" else name
            cells = [label, str(batch), engine, precision, number(unit(work, ms))]
            rows.append([*cells, number(alike, "x"), number(best, "x"), note])
    return rows


def text_table(rows):
    widths = [max(len(row[i]) for row in [HEAD, *rows]) for i in range(len(HEAD))]
    right = {1, 4, 5, 6}
    for row in [HEAD, *rows]:
        cells = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths)))
        yield "  ".join(cells).rstrip()


def markdown_table(rows):
    yield "| " + " | ".join(HEAD) + " |"
    yield "|---|--:|---|---|--:|--:|--:|---|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
