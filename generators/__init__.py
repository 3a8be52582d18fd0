"""Every synthesizer, one method per file (installed as `augforge.generators`)."""
