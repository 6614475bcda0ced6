"""A trained network: how it is loaded, and what it finds in images."""
