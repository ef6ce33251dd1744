"""Draws grouped bars on a log scale: `draw_chart.py FILE.svg < figures.json` (see `chart.py`)."""

import json
import math
import sys

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

# Text stays text, and the same figures give the same file.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "peers", "font.size": 9})

_OWN_COLOUR = "#c1440e"
_WIDTH = 0.84


def main() -> None:
    """Draw."""
    figures = json.load(sys.stdin)
    servers, models = figures["servers"], figures["models"]
    greys = plt.get_cmap("viridis")
    chart, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    step = _WIDTH / len(servers)
    for index, (title, rates) in enumerate(servers):
        places = [at - _WIDTH / 2 + (index + 0.5) * step for at in range(len(models))]
        known = [(at, rate) for at, rate in zip(places, rates, strict=True) if rate]
        axes.bar(
            [at for at, _ in known],
            [rate for _, rate in known],
            width=step * 0.92,
            label=title,
            color=_OWN_COLOUR if title == "pyserve" else greys(index / max(len(servers), 2)),
        )
    axes.set_yscale("log")
    lowest = min(rate for _, rates in servers for rate in rates if rate)
    axes.set_ylim(bottom=10 ** math.floor(math.log10(lowest)))
    axes.set_xticks(range(len(models)), models)
    axes.set_title(figures["title"])
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    chart.legend(frameon=False, fontsize=8, ncols=5, loc="outside lower center")
    chart.savefig(sys.argv[1], metadata={"Date": None})


if __name__ == "__main__":
    main()
