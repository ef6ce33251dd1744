"""pyserve beside what a user would pick instead: same files, same load, same machine."""
