"""ResNet-18 in plain torch, with random weights: a model with real work in it."""
