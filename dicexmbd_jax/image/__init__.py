"""Before the network: channels, normalisation, geometry (NumPy)."""
