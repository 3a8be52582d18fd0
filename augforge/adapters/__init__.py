"""augforge in other people's loops: a DataLoader, scikit-learn and imbalanced-learn, Ray."""
