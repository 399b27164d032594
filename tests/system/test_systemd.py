"""The units under a real systemd, in a container over a copy of this machine's root: tests/system/systemd/."""
import copy
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import TINY, TOP, merged

HERE = Path(__file__).resolve().parent / "systemd"


def why_not():
    if os.geteuid() != 0:
        return "not root"
    for program in ("systemd-nspawn", "unshare", "findmnt", "dbus-daemon"):
        if not shutil.which(program):
            return f"no {program}: deploy/setup.sh cluster installs it"
    r = subprocess.run(["unshare", "--mount", "bash", "-c", "mkdir -p /mnt/g && mount -t tmpfs tmpfs /mnt/g && mkdir /mnt/g/{u,w,m} && "
                        "mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/g/u,workdir=/mnt/g/w /mnt/g/m"], capture_output=True, text=True)
    return f"no overlay file system: {r.stderr.strip()[:100]}" if r.returncode else None


REASON = why_not()


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_units_under_a_real_systemd(tmp_path):
    config = merged(copy.deepcopy(TINY), {"run": {"dir": "runs/ci"}, "policy": {"init": "/usr/share/gantry/models/tiny"},
                                          "cluster": {"slots": 1, "prm_servers": []},
                                          "status": {"http": "127.0.0.1:8080", "token_file": "/etc/page.token"}})
    config["stages"] = [{"demos": {"episodes": 20000, "style": "slow"}}]
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    r = subprocess.run([HERE / "run.sh", TOP, tmp_path], capture_output=True, text=True, timeout=450)
    said = [(tmp_path / name).read_text(errors="replace")[-6000:] if (tmp_path / name).exists() else "" for name in ("result.log", "console.log")]
    assert (tmp_path / "rc").exists() and (tmp_path / "rc").read_text().strip() == "0", r.stderr + said[0] + (said[1] if not said[0] else "")
