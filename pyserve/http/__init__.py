"""The HTTP front end: one file per API; `assemble` puts them together."""
