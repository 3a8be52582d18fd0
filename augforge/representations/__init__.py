"""Pictures to features: one method, one file."""
