"""Protocols of the literature beside N-way K-shot episodes: low-shot learning in a joint label space, verification."""
