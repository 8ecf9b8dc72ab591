"""Configurations: default.py has every value; the others override some."""
