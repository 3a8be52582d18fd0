"""Parts by name: the catalog, fitting them, and a fitted part as a folder."""
