"""The migration guide is followed step by step, and the example client runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from archives import Affine, archive, script
from PIL import Image
from server_process import ROOT, start

GUIDE = (ROOT / "docs" / "torchserve.md").read_text()


def steps() -> list[tuple[str, str]]:
    """The code blocks of the guide, in order: language and text."""
    section = GUIDE.partition("## Step by step")[2].partition("\n## ")[0]
    found = re.findall(r"^ *```(\w+)\n(.*?)^ *```", section, re.DOTALL | re.MULTILINE)
    return [(language, dedent(text)) for language, text in found]


def shell(text: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", text],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_guide_works_as_it_is_written(tmp_path: Path) -> None:
    languages = [language for language, _ in steps()]
    assert languages == ["python", "sh", "properties", "sh", "sh"]
    export, package, properties, serve, ask = (text for _, text in steps())
    subprocess.run([sys.executable, "-c", export], cwd=tmp_path, check=True, timeout=120)
    shell(package, tmp_path)
    # Other ports, or two runs of this test would get in each other's way.
    free = re.sub(r"(127\.0\.0\.1:|_port=)\d+", r"\g<1>0", properties)
    (tmp_path / "config.properties").write_text(free)
    Image.new("RGB", (300, 300), (250, 0, 0)).save(tmp_path / "picture.png")
    arguments = serve.split()
    assert arguments[:2] == ["pyserve", "serve"]
    paths = [str(tmp_path / one) if (tmp_path / one).exists() else one for one in arguments[2:]]
    with start(tmp_path / "log", *paths) as server:
        ports = server.ready["torchserve"]
        assert server.ready["models"] == {"colours": ["1"]}
        assert server.ready["failed"] == {}
        assert ["number_of_netty_threads" in one for one in server.ready["not_understood"]] == [
            True
        ]
        for name, port in (("inference", 8080), ("management", 8081)):
            ask = ask.replace(f"http://127.0.0.1:{port}", ports[name])
        lines = [line for line in ask.splitlines() if line]
        assert len(lines) == 4
        ping, classes, described, scaled = (json.loads(shell(line, tmp_path)) for line in lines)
        assert ping == {"status": "Healthy"}
        assert next(iter(classes)) == "red"
        assert described[0]["minWorkers"] == 2
        assert scaled == {"status": "Workers scaled to 1 for model: colours"}
        assert server.stop() == 0


def test_the_example_client_runs_against_the_ports_of_torchserve(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    archive(store, "line", "--serialized-file", str(script(Affine(), tmp_path / "line.pt")))
    config = tmp_path / "config.properties"
    config.write_text(
        "inference_address=http://127.0.0.1:0\nmanagement_address=http://127.0.0.1:0\n"
        "metrics_address=http://127.0.0.1:0\ngrpc_inference_port=0\ngrpc_management_port=0\n"
    )
    options = ("--model-store", str(store), "--ts-config", str(config), "--torchserve-ports")
    with start(tmp_path / "log", *options) as server:
        ports = server.ready["torchserve"]
        example = [sys.executable, str(ROOT / "examples" / "torchserve_client.py")]
        example += ["--inference", ports["inference"], "--management", ports["management"]]
        done = subprocess.run(
            [*example, "line.mar", "mine", "[1, 2]"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "{'status': 'Healthy'}"
        assert lines[3] == "[3.0, 5.0]"
        assert "'minWorkers': 2" in lines[4]
        refused = subprocess.run(
            [*example, "gone.mar", "mine", "[1]"], capture_output=True, text=True, check=False
        )
        assert refused.returncode == 1
        assert refused.stderr.startswith("400 InvalidModelException: ")
        assert server.stop() == 0


def test_the_guide_names_only_pages_and_headings_that_exist() -> None:
    for page, heading in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", GUIDE):
        path = ROOT / "docs" / page if page else ROOT / "docs" / "torchserve.md"
        assert path.is_file(), page
        if heading:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings]
            assert heading in anchors, (page, heading)
