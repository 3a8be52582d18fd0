"""`--with auto`: choose by the pictures that are there what names them best, say why, and write it down as a recipe."""
