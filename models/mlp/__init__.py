"""A multi-layer perceptron whose work is plain matrix products."""
