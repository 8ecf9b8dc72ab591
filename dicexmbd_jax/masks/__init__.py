"""After the network: nuclei, cells, measures (NumPy/SciPy)."""
