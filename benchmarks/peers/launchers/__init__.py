"""How each peer is installed, started and asked; one file per peer."""
