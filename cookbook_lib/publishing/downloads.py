"""What readers take away: the executed notebook, made ready for Colab, and where else it opens.

The workflow `publish` commits the notebooks to the branch `notebooks`, from which Colab reads them.
"""

import json
from urllib.parse import urlsplit

from cookbook_lib.publishing.recipes import KEY

BRANCH = "notebooks"
COLAB = """\
# On Colab this cell fetches the cookbook and what it needs. Elsewhere it does nothing.
import sys

if "google.colab" in sys.modules:
    !git clone --quiet {repository} /content/cookbook
    !git -C /content/cookbook checkout --quiet {commit}
    %pip install --quiet '/content/cookbook[recipes]'
    %cd /content/cookbook/recipes
    sys.path.insert(0, "/content/cookbook")\
"""


def notebook(executed: dict, repository: str) -> str:
    """An executed notebook as a file to open, with the cell for Colab on top."""
    cells = [cell(COLAB.format(repository=repository, commit=commit(executed))), *executed["cells"]]
    return json.dumps(executed | {"cells": cells}, indent=1, ensure_ascii=False) + "\n"


def cell(source: str) -> dict:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": "on-colab",
        "metadata": {},
        "outputs": [],
        "source": source,
    }


def commit(executed: dict) -> str:
    """What the notebook was made from; the branch `main` where that is not known."""
    said = executed["metadata"][KEY]["where"]["commit"]
    return (said or "main").removesuffix("-dirty")


def places(name: str, repository: str) -> dict[str, str]:
    """Where a chapter opens without being installed: name -> address."""
    slug = urlsplit(repository).path.strip("/")
    return {
        "Colab": f"https://colab.research.google.com/github/{slug}/blob/{BRANCH}/{name}.ipynb",
        "Codespaces": f"https://codespaces.new/{slug}?quickstart=1",
        "Binder": f"https://mybinder.org/v2/gh/{slug}/main?urlpath=lab/tree/recipes/{name}.ipynb",
    }
