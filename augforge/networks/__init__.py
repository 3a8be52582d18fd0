"""Building blocks of networks that know no bank and no label: layers, losses, pixels, products of rows."""
