"""Predicted and reference masks to scores."""
