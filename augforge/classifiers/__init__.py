"""Classifiers: a support set and queries in, one score for each class out. One method, one file."""
