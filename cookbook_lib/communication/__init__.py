"""Collectives: a table of them, ranks that run them in torch and in JAX, and what they cost."""
