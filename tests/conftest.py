"""The site, built once for all tests that look at it."""

import subprocess
import sys
from pathlib import Path

import pytest
from browser import served

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def site() -> Path:
    """The site as `make site` builds it, from the notebooks that `make recipes` executed."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return ROOT / "site"


@pytest.fixture(scope="session")
def address(site: Path):
    with served(site) as url:
        yield url
