"""The tensor engine of classical augmentation: batched, on any device, differentiable."""
