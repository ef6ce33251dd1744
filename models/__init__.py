"""The model zoo: small models that build, train or initialise, and export themselves.

Installed as `pyserve.zoo`; in a checkout it is also `models`.  Importing it imports no torch.
"""

from .zoo import build, describe, names

__all__ = ["build", "describe", "names"]
