"""What every batch command shares: the pool, failures, state, results."""
