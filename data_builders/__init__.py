"""Builders of record datasets, and the downloads that they start from."""
