"""Settings: the typed tree behind ``params.yaml``, the plan that is built from it, and what the paper prints."""
