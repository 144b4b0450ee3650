"""What measures speed, on request: no stage of DVC runs any of it. Results are committed under ``benchmarks/``."""
