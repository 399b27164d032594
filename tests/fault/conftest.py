"""Fault tests use the cluster of the system tests (tests/system/conftest.py), here called cluster_lab."""
import importlib.util
import sys
from pathlib import Path

system = Path(__file__).resolve().parents[1] / "system"
sys.path.append(str(system))
spec = importlib.util.spec_from_file_location("cluster_lab", system / "conftest.py")
lab = importlib.util.module_from_spec(spec)
sys.modules["cluster_lab"] = lab
spec.loader.exec_module(lab)
model, make_cluster, cluster, no_reports = lab.model, lab.make_cluster, lab.cluster, lab.no_reports
