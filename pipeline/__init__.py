"""The pipeline around the networks: data, training, tracking and the report."""
