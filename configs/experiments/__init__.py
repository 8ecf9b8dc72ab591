"""Configurations of experiments; none makes what is shipped."""
