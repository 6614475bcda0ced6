"""Splits the archive into training, validation and test samples."""
