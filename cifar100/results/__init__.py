"""Predictions and tables: the one place that writes and reads them."""
