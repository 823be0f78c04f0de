"""`nav` of mkdocs.yml, with its patterns filled: recipes in order, and models."""

from fnmatch import fnmatch

from cookbook_lib.publishing import gallery


def filled(nav: list, pages: list[str]) -> list:
    """`nav` with each pattern replaced by the pages that it matches; the others come last."""
    placed: set[str] = set()
    found = fill(nav, pages, placed)
    rest = [page for page in pages if page not in placed]
    return [*found, {"More recipes": rest}] if rest else found


def fill(entry, known: list[str], placed: set[str]):
    """An entry of `nav` with its patterns replaced by the pages they match; None if by none."""
    if isinstance(entry, dict):
        found = {title: fill(inner, known, placed) for title, inner in entry.items()}
        return {title: inner for title, inner in found.items() if inner} or None
    if isinstance(entry, list):
        return [page for e in entry for page in as_list(fill(e, known, placed))]
    if entry == gallery.MENU:
        return gallery.menu()
    if "*" not in entry:
        return entry
    pages = [page for page in known if fnmatch(page, entry)]
    placed.update(pages)
    return pages


def as_list(entry) -> list:
    return entry if isinstance(entry, list) else [entry] if entry else []
