"""The network and what trains it (JAX/Flax)."""
