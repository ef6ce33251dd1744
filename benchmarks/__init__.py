"""The figures that this project promises, each measured against a floor of the same run."""
