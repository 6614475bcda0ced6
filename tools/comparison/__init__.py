"""Reads the results of revisions, and compares them."""
