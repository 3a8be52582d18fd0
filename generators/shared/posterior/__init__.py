"""What `posterior` and `hallucinator` share: predictive densities, and held-out classes that judge them."""
