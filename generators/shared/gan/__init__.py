"""What the methods that train GANs of pictures share."""
