"""Measurements of speed and accuracy; no part of the pipeline."""
