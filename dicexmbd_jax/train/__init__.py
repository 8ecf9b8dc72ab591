"""A record's whole way: from its file to a step of training."""
