"""tests/gpu/check.sh without a GPU: what its parts say is in one report, whatever one of them does. The parts are small scripts here."""
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from conftest import TOP

TESTS = ["test_device", "test_device_step", "test_device_narrow", "test_device_model", "test_device_contract", "test_device_blas", "test_device_dnn", "test_device_graphs", "test_device_train", "test_device_oft", "test_device_ranks", "test_device_memory", "test_device_base", "test_device_large"]


@pytest.fixture
def parts(tmp_path):
    """A folder of programs that pass; write(name, text) makes another one of one."""
    def write(name, text):
        path = tmp_path / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/bash\n" + text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    for name in TESTS:
        write(f"nn/{name}", f"echo {name} ran\n")
    write("gantry", "if [ $2 = bench ]; then echo '       1          4      4       2134.5            0.40          30.0 %          212  NVIDIA H200'; else echo drawn by NVIDIA H200 >&2; fi\n")
    write("compute-sanitizer", """echo "sanitizer $*, own '$GANTRY_TEST_OWN', brief '$GANTRY_TEST_BRIEF'"; echo "========= ERROR SUMMARY: 0 errors"; exec "${@: -1}"\n""")
    write("bench/bench_gpu", 'echo "product 8 x 8: 12.5 TFLOP/s"\n')
    write("bench/bench_gpu_models", 'echo "$4 $2 $3: 33.1 actions/s"\n')
    return tmp_path, write


def check(tmp_path, **more):
    env = os.environ | {"GPU_CHECK_BIN": str(tmp_path / "bin"), "GPU_CHECK_SANITIZER": str(tmp_path / "bin/compute-sanitizer")} | more
    done = subprocess.run([TOP / "tests/gpu/check.sh", tmp_path / "report.txt"], capture_output=True, text=True, timeout=120, env=env, cwd=TOP)
    return done.returncode, (tmp_path / "report.txt").read_text()


def test_all_of_it_is_in_one_report(parts):
    tmp_path, _ = parts
    status, report = check(tmp_path)
    assert status == 0, report
    for name in TESTS:
        assert f"{name} ran" in report
    for part in ["act fast", "act strict", "train fast", "train strict", "contract fast", "contract strict", "oft fast", "prm fast", "score fast", "adapters fast"]:
        assert f"openvla-7b {part}: 33.1 actions/s" in report
    assert "drawn by NVIDIA H200" in report and "ok   pictures" in report
    assert "pictures: 1 pictures, 4 processes: 2134.5 steps/s, drawn by NVIDIA H200" in report
    measured = report.split("==== measured")[1]
    assert "kernels: product 8 x 8: 12.5 TFLOP/s" in measured and "act-fast: openvla-7b act fast: 33.1 actions/s" in measured
    assert report.rstrip().splitlines()[-1].startswith("gpu-check: all passed")
    order = re.findall(r"^ok +(\S+)", report, re.M)      # the figures that are asked for come before what may take all the time that is left
    figures = ["act-fast", "train-fast", "oft-fast", "prm-fast", "adapters-fast", "score-fast", "train-strict", "act-strict"]
    assert max(order.index(part) for part in figures) < min(order.index(part) for part in ["large", "memcheck", "initcheck", "racecheck"])


def test_libraries_of_the_system_are_seen_without_sbin_in_the_path():
    look = 'say() { echo "$@"; }; . tests/gpu/libraries.sh; find_library libc.so.6'
    said = subprocess.run(["/bin/bash", "-c", look], cwd=TOP, capture_output=True, text=True, timeout=60, env={"PATH": "/usr/bin:/bin"})
    assert said.stdout == "library libc.so.6: the system's\n", said


def test_what_crashes_hangs_or_fails_takes_nothing_with_it(parts):
    tmp_path, write = parts
    write("nn/test_device_model", "echo so far so good; kill -SEGV $$\n")
    write("nn/test_device_dnn", "echo begun; exec sleep 60\n")
    write("bench/bench_gpu_models", 'echo "$4 $2 $3: 33.1 actions/s"; [ $2 != train ]\n')
    status, report = check(tmp_path, GPU_CHECK_MOST="1")
    assert status == 1
    assert "so far so good" in report and "begun" in report             # as far as they came
    assert "FAIL models (status 139" in report and "FAIL attention: not done" in report and "FAIL train-strict (status 1" in report
    assert "test_device_memory ran" in report and "act-strict: openvla-7b act strict: 33.1 actions/s" in report
    last = report.rstrip().splitlines()[-1]
    assert last.startswith("gpu-check: FAILED: attention train-fast models train-strict; left out: none"), last


def test_without_a_device_it_skips_and_a_device_that_goes_is_a_failure(parts):
    tmp_path, write = parts
    write("bench/bench_gpu_models", "echo 'skipped: no device any more'; exit 77\n")
    status, report = check(tmp_path)
    assert status == 1 and "SKIP act-fast: no device any more" in report and "FAILED: act-fast" in report
    write("nn/test_device", "echo 'skipped: no NVIDIA driver'; exit 77\n")
    status, report = check(tmp_path)
    assert status == 0 and report.rstrip().endswith("SKIP ops: no NVIDIA driver")


def test_pictures_drawn_in_software_are_said_to_be(parts):
    tmp_path, write = parts
    write("gantry", "echo 'drawn by llvmpipe, in software: no GPU drew this' >&2\n")
    status, report = check(tmp_path)
    assert status == 0 and "SKIP pictures: EGL has no GPU here" in report


def test_the_grid_of_ops_under_the_sanitizer(parts):
    tmp_path, write = parts
    status, report = check(tmp_path)
    grid = f"{tmp_path}/bin/nn/test_device"
    assert status == 0, report
    assert f"sanitizer --tool memcheck --error-exitcode 9 {grid}, own '1', brief ''" in report
    assert f"sanitizer --tool memcheck --error-exitcode 9 {grid}, own '', brief '1'" in report
    for tool in ["initcheck", "racecheck"]:
        assert f"sanitizer --tool {tool} --error-exitcode 9 {grid}, own '1', brief '1'" in report and f"ok   {tool}" in report
    assert "memcheck: ========= ERROR SUMMARY: 0 errors" in report.split("==== measured")[1]

    write("compute-sanitizer", "case $* in *racecheck*) echo a hazard; exit 9 ;; esac\n")
    status, report = check(tmp_path)
    assert status == 1 and "a hazard" in report and "FAIL racecheck (status 9" in report and "FAILED: racecheck; left out: none" in report
    status, report = check(tmp_path, GPU_CHECK_SANITIZER="")
    assert status == 0 and "SKIP memcheck: compute-sanitizer is not installed; `make sanitizer` fetches it" in report
    assert "SKIP racecheck" in report and "gpu-check: all passed" in report


def test_the_sanitizer_knows_what_it_is_asked():
    """The real one, as far as it goes without a device: it starts, and every word that check.sh gives it is one of its own."""
    tool = TOP / ".deps/compute-sanitizer/bin/compute-sanitizer"
    tool = str(tool) if tool.exists() else shutil.which("compute-sanitizer")
    if not tool:
        pytest.skip("compute-sanitizer is not installed; `make sanitizer` fetches it")
    said = subprocess.run([tool, "--version"], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0 and "Compute Sanitizer" in said.stdout, said
    known = subprocess.run([tool, "--help"], capture_output=True, text=True, timeout=60).stdout
    text = (TOP / "tests/gpu/check.sh").read_text()
    options, tools = set(re.findall(r'\$sanitizer" (--.*?) "\$bin', text)[0].split()[::2]), re.findall(r"sanitize [a-z-]+ \d+ (\w+)", text)
    assert options == {"--tool", "--error-exitcode"} and len(tools) == 4
    for word in options:
        assert f"  {word} " in known
    for word in tools:
        assert re.search(rf"^ +{word} +: ", known, re.M), word
    # it must be able to start a program: some wheels lack what does that (deploy/sanitizer.sh)
    beside = Path(tool).resolve().parent
    assert any((folder / "TreeLauncherSubreaper").exists() for folder in [beside, beside.parent / "compute-sanitizer", beside.parent / "lib"])


def test_what_there_is_no_time_for_is_named(parts):
    tmp_path, _ = parts
    status, report = check(tmp_path, GPU_CHECK_LIMIT="5")
    assert status == 1 and "LEFT act-fast: no time is left" in report and "left out: ops step narrow products" in report


# ---- beside_torch.sh: the table of ratios beside PyTorch ----

TORCH = r"""case "$*" in *--look*) echo "PyTorch 2.11.0, NVIDIA H200"; exit 0 ;; esac
echo "openvla-7b acts, PyTorch transformers, B = 1: 12.50 actions/s, 80.00 ms (1.0 s)"
echo "openvla-7b acts, PyTorch modules, B = 1: 20.00 actions/s, 50.00 ms (1.0 s)"
echo "openvla-7b acts, PyTorch compiled, B = 1: 25.00 actions/s, 40.00 ms (9.0 s)"
echo "openvla-7b learns by adapters, PyTorch modules, B = 16: 8.00 samples/s, 2000.00 ms, blocks computed twice (4.0 s)"
echo "failed: openvla-7b acts, PyTorch compiled, B = 8: RuntimeError: no"
"""


def beside(tmp_path, write, python=TORCH, **more):
    write("python", python)
    env = os.environ | {"BESIDE_BIN": str(tmp_path / "bin/bench"), "PYTHON": str(tmp_path / "bin/python")} | more
    done = subprocess.run([TOP / "tests/gpu/beside_torch.sh", tmp_path / "beside.txt"], capture_output=True, text=True, timeout=60, env=env, cwd=TOP)
    return done.returncode, (tmp_path / "beside.txt").read_text()


def test_ratios_beside_pytorch(parts):
    tmp_path, write = parts
    write("bench/bench_gpu_models", """echo "openvla-7b skipped, numerics fast"
case $2 in
act) echo "openvla-7b acts, numerics fast, B = 1: 37.50 actions/s, 26.67 ms; at this run's ceilings 41.8: 89.7 % (aim 70 %)"
     echo "openvla-7b acts, numerics fast, B = 8: 100.00 actions/s, 80.00 ms" ;;
train) echo "openvla-7b learns by adapters, numerics fast, B = 16: 50.00 samples/s, 320.00 ms" ;;
esac
""")
    status, report = beside(tmp_path, write)
    assert status == 0, report
    rows = [line.split() for line in report.splitlines() if re.search(r"B = \d+ +(actions|samples)/s", line)]
    assert rows == ["acts, B = 1 actions/s 37.50 25.00 compiled 1.50 12.50 3.00".split(), "acts, B = 8 actions/s 100.00 - - - -".split(),
                    "learns by adapters, B = 16 samples/s 50.00 8.00 modules 6.25 - -".split()], report
    assert "ok   adapters" in report and report.rstrip().splitlines()[-1].startswith("beside_torch: done")

    status, report = beside(tmp_path, write, TORCH + "exit 1\n")       # what was measured counts all the same
    assert status == 1 and "1.50" in report and report.rstrip().endswith("FAILED: torch")


def test_nothing_to_stand_beside(parts):
    tmp_path, write = parts
    status, report = beside(tmp_path, write, "echo 'skipped: PyTorch 2.11.0 sees no GPU'; exit 77\n")
    assert status == 0 and report.rstrip().endswith("SKIP look: PyTorch 2.11.0 sees no GPU")
    write("bench/bench_gpu_models", "echo 'skipped: no NVIDIA driver'; exit 77\n")
    status, report = beside(tmp_path, write)
    assert status == 0 and report.rstrip().endswith("SKIP act: no NVIDIA driver")
    status, report = beside(tmp_path, write, f'CUDA_VISIBLE_DEVICES= exec {shutil.which("python3")} "$@"\n')       # the real one's word
    assert status == 0 and "SKIP look: " in report and ("torch" in report or "sees no GPU" in report)
