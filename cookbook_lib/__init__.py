"""Calculators, blocks and benchmarks for hybrid (SSM / Transformer / MoE) language models."""
