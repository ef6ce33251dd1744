"""y = ax + b: the smallest model that can be served."""
