"""Samples, splits and class names, in memory and as files."""
