"""The site, built once for all tests that look at it; and the marker `gpu` of tests that need CUDA,
which are skipped where there is none. `make gpu` runs them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs CUDA; skipped where there is none")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no GPU: what needs CUDA did not run")


@pytest.fixture(scope="session")
def site() -> Path:
    """The site as `make site` builds it, from the notebooks that `make recipes` executed."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return ROOT / "site"


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    from browser import served

    with served(site) as url:
        yield url


@pytest.fixture(scope="session")
def visited(site: Path, address: str) -> list:
    """Every page as a browser found it, see `visits`."""
    from visits import visits

    return list(visits(site, address))
