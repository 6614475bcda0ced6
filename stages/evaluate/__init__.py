"""Computes everything that is published about the trained network."""
