"""How recipes become pages: executed once, tested and published from the same run."""
