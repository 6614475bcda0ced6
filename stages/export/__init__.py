"""Writes the network in other formats, and a card about it."""
