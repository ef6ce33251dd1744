"""What stands between the data that clients have and the tensors that a model takes."""
