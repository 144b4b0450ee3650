"""The report: the paper's tables, figures and claims beside what was measured, and the runs behind each number.

Reads the small files of runs only: no weights, no DVC, no MLflow, and no PyTorch.
"""
