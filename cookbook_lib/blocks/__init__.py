"""The blocks of hybrid models in PyTorch: one file a block, each built from its spec."""
