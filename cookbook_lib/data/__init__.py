"""Data: reading, counting tokens, filtering, removing duplicates, as one pipeline."""
