"""A transformer encoder of the size that sentence embeddings use, with random weights."""
