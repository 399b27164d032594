"""Fault tests use the cluster of the system tests (tests/system/conftest.py)."""
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "system"))
from conftest import cluster, make_cluster, model, no_reports  # noqa: E402, F401
