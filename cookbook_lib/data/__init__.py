"""Text corpora: reading them whole, counting their tokens, and packing them for training.

Imports nothing of the other rooms, and nothing heavy before it is needed.
"""
