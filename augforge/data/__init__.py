"""Sources: whatever holds labelled pictures or features, opened as banks by `augforge.data.source.open_source`."""
