"""One small file per command: list inputs, call pure code, write outputs."""
