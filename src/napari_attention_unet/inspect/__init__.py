"""Measures over a prediction."""
