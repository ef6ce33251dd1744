"""Handwritten digits: a small convolutional network trained on scikit-learn's real data."""

from .data import DigitsSplit, load_digits_split

__all__ = ["DigitsSplit", "load_digits_split"]
