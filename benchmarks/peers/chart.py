"""The chart of docs/performance.md: requests/s by model with all connections busy, log scale.

Drawn by matplotlib in an environment of its own, from the figures as JSON on standard input.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers import environment
from pyserve.bench.processes import ChildFailed

CHART = Path(__file__).resolve().parents[2] / "docs" / "images" / "peers.svg"

_SCRIPT = Path(__file__).resolve().parent / "servers" / "draw_chart.py"


def bars(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the chart shows: for each model and server the rate, None where there is none."""
    plan = results["plan"]
    most = max(plan["connections"])
    rates: dict[str, dict[str, float]] = {name: {} for name in results["titles"]}
    for visit in results["medians"]:
        for cell in visit["cells"]:
            key = (cell["form"], cell["mode"], cell["connections"])
            if (
                visit["peer"] in rates
                and key == ("binary", "closed", most)
                and not cell["failures"]
            ):
                rates[visit["peer"]][visit["model"]] = cell["requests_per_s"]
    return {
        "title": f"requests/s, {most} connections, closed loop",
        "models": list(plan["models"]),
        "servers": [
            [title.replace("`", ""), [rates[name].get(model) for model in plan["models"]]]
            for name, title in results["titles"].items()
            if rates[name]
        ],
    }


def draw(results: Mapping[str, Any], path: Path = CHART) -> None:
    """Write the chart as SVG."""
    python = environment.tool("chart", ("matplotlib==3.10.*",))
    path.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [python, str(_SCRIPT), str(path)],
        input=json.dumps(bars(results)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ChildFailed(f"drawing the chart failed: {done.stderr.strip()[-400:]}")
