"""Helpers that know nothing of runs, data or networks."""
