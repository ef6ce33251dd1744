"""Headless Chromium, where it is installed: what a page looks like when its scripts have run."""

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def rendered(url: str, profile: Path) -> tuple[str, str]:
    """Open `url`, let its scripts run, and return the page's HTML and the browser's log.

    profile: an empty folder for the browser.
    """
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-dev-shm-usage", f"--user-data-dir={profile}", "--enable-logging=stderr"),
            *("--virtual-time-budget=20000", "--dump-dom", url),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    return done.stdout, done.stderr
