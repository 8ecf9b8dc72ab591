"""Dice-XMBD on JAX: single-cell segmentation of imaging mass cytometry."""

__version__ = "0.1.0"
