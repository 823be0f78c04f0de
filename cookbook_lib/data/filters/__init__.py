"""Filters: each is one function that answers True, or False and why."""
