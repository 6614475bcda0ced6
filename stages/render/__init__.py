"""Draws the figures and the report page; computes no published number."""
