"""What a hybrid model costs: standard library only, so that it also runs in a browser."""
