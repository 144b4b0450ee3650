"""Runs on Ray: the cluster, the training core under Ray Train, many runs at once, and what they cost."""
