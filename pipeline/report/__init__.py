"""The report: the paper's tables, figures and claims beside what was measured, and the runs behind each number.

Reads the small files of runs only: no weights, no DVC, no MLflow, and no PyTorch.
"""

from __future__ import annotations

from pipeline.report.build import ReportSummary, build_index, build_report
from pipeline.report.trace import trace

__all__ = ["ReportSummary", "build_index", "build_report", "trace"]
