"""A perceptron so small that a benchmark sees the server and not the model."""
