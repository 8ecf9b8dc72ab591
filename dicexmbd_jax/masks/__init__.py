"""After the network: nuclei, cells, measures, scores (NumPy/SciPy)."""
