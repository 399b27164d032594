"""The job scripts on a real Slurm of three nodes, all on this machine: tests/system/slurm/."""
import copy
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import TINY, TOP, merged, scratch

HERE = Path(__file__).resolve().parent / "slurm"


def why_not():
    if os.geteuid() != 0:
        return "not root"
    for program in ("slurmctld", "slurmd", "munged", "sbatch", "unshare", "ip"):
        if not shutil.which(program):
            return f"no {program}: deploy/setup.sh cluster installs it"
    r = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount-proc", "ip", "link", "add", "ci0", "type", "bridge"], capture_output=True)
    return "no network namespaces or bridges" if r.returncode else None


REASON = why_not()


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_jobs_on_a_real_slurm():
    out = scratch()
    try:
        config = merged(copy.deepcopy(TINY), {"run": {"dir": str(out / "run")}, "policy": {"init": str(TOP / "models" / "tiny")},
                                              "cluster": {"slots": 1, "env_workers": 2, "prm_servers": []}})
        config["stages"] = [{"demos": {"episodes": 20000, "style": "slow"}}]
        (out / "run.yaml").write_text(json.dumps(config))
        r = subprocess.run([HERE / "run.sh", TOP, out], capture_output=True, text=True, timeout=400)
        said = (out / "result.log").read_text(errors="replace") if (out / "result.log").exists() else ""
        failed = "\n".join(line for line in said.splitlines() if line.startswith("FAIL"))
        assert (out / "rc").exists() and (out / "rc").read_text().strip() == "0", failed + r.stderr + said[-40000:]
    finally:
        shutil.rmtree(out, ignore_errors=True)
