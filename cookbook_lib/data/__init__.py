"""Text corpora: reading them whole, counting their tokens, packing them for training; filters, and
duplicates.

Imports nothing of the other rooms, and nothing heavy before it is needed.
"""
