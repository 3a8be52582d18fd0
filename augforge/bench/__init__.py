"""`augforge bench`: plan -> features -> made rows -> accuracies -> table."""
