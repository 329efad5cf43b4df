"""Rebuild products from what is stored beside them, with nothing of what made them."""
