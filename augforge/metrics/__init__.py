"""How near made rows are to real ones: pure functions of features, real [n, d] and made [m, d], to numbers."""
