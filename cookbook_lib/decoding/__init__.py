"""Decoding: token after token from a model and its cache."""
