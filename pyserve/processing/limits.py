"""How much one request may ask of processing; what it brings is checked against these first."""

MAX_PREPARED_BYTES = 256 << 20
"""All tensors made of one request, and any single array on the way there."""

MAX_ROWS = 4096
"""Rows of one request to a model that puts no bound of its own."""

MAX_TEXT_BYTES = 1 << 20
"""One text; a tokenizer reads all of it before it truncates."""

MAX_JSON_BYTES = 16 << 20
"""One array of numbers as JSON."""

MAX_LINE_CHARS = 1 << 20
"""One line of a CSV table."""

MAX_COLUMNS = 65_536
"""Columns of a table."""

MAX_DIRECTORY_BYTES = 64 << 10
"""The directory of an npz archive: some hundred arrays."""
