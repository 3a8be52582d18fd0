"""The command line (installed as `augforge.cli`): thin, and torch is imported inside the commands."""
