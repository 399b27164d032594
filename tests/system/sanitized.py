"""The daemons as a sanitizer sees them. GANTRY_SANITIZED=address-undefined (or thread) runs the tests with the programs of that
build (make SANITIZE=address,undefined all), and a test fails in which any process wrote a report.

A daemon that ends by a report is started again like any other that died, so nothing but the report tells: each process writes its
own into one directory. At the end of a test the daemons get SIGTERM instead of SIGKILL: leaks are looked for when a process leaves
by itself."""
import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
BUILD = os.environ.get("GANTRY_SANITIZED", "")
REPORTS = Path(tempfile.mkdtemp(prefix="gantry-reports.")) if BUILD else None
OPTIONS = {
    # handle_*=2: or the daemons' own crash report takes the signal, and the sanitizer's is never written
    "ASAN_OPTIONS": "strict_string_checks=1:detect_stack_use_after_return=1:handle_segv=2:handle_sigbus=2:handle_sigfpe=2",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": f"halt_on_error=1:suppressions={TESTS}/tsan.supp",
    "LSAN_OPTIONS": f"print_suppressions=0:suppressions={TESTS}/lsan.supp",
}


def prepare():
    """What this process's children will be told. What the caller has said wins, but for the directory, which is this process's."""
    atexit.register(shutil.rmtree, REPORTS, ignore_errors=True)
    for name, options in OPTIONS.items():
        where = "" if name == "LSAN_OPTIONS" else f"log_path={REPORTS}/r:log_exe_name=1"
        os.environ[name] = ":".join(filter(None, (options, os.environ.get(name), where)))


def leave(processes):
    """They end by themselves. After a run's end they do so unasked, and SIGTERM would kill who has come to its look for leaks."""
    for number, patience in ((0, 15 if any(p.poll() == 0 for p in processes) else 0), (signal.SIGTERM, 30), (signal.SIGTERM, 10)):
        running = [p for p in processes if p.poll() is None]
        for p in running:
            p.send_signal(number)
            p.send_signal(signal.SIGCONT)
        end = time.monotonic() + patience
        for p in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                p.wait(max(0.1, end - time.monotonic()))


def reports():
    """What has been written since the last time, as text."""
    found = []
    for path in sorted(REPORTS.iterdir()) if BUILD else ():
        found.append(f"---- {path.name}\n{path.read_text(errors='replace')}")
        path.unlink()
    return "\n".join(found)
