"""Curation: filters that say why a picture, or a row of features, is not worth keeping; and near-duplicates."""
