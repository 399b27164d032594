"""`gantry sim`: suites by themselves. What needs LIBERO's files skips where they are not."""
import os
import re
import shutil
import struct
import subprocess

import pytest

from conftest import BIN, PATIENCE, TOP, gantry, libero_is_missing

MISSING = libero_is_missing()
needs_libero = pytest.mark.skipif(bool(MISSING), reason=MISSING)
SOUP = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"


def sim(*args):
    r = gantry("sim", *args)
    assert r.returncode == 0, r.stderr
    return r.stdout


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def test_list():
    text = sim("list")
    assert "pick_up_object" in text and " any " in text


def test_expert_and_replay(tmp_path):
    """The expert solves it; its actions from the file end in the same step."""
    text = sim("play", "--states", "3", "--record", tmp_path / "a.txt")
    steps = re.search(r"test 3 +success +(\d+) steps", text).group(1)
    again = sim("play", "--states", "3", "--policy", tmp_path / "a.txt", "-o", tmp_path / "a.png", "--size", "64")
    assert re.search(rf"test 3 +success +{steps} steps", again), again
    width, height = png_size(tmp_path / "a.png")
    assert width > 5 * 64 and height > 64
    assert "no success" in sim("play", "--states", "3", "--policy", "no-op", "--steps", "5")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    before = (tmp_path / "a.txt").stat().st_ino
    sim("play", "--states", "3", "--record", tmp_path / "link.txt")         # replaced as a whole, behind a link, too
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "a.txt").stat().st_ino != before
    full = subprocess.run([BIN / "gantry", "sim", "play", "--states", "3", "--record", "/dev/full"], capture_output=True, text=True)
    assert full.returncode == 1 and "/dev/full: No space left on device" in full.stderr, full.stderr


def test_many_states(tmp_path):
    text = sim("play", "--task", "open_drawer", "--split", "val", "--states", "0..4", "-o", tmp_path / "d.png", "--size", "64")
    assert re.search(r"expert: 5 of 5 solved, 1.00 \[0.57 1.00\], in \d+ steps", text), text
    assert len(list(tmp_path.glob("d-*.png"))) == 5


def test_render(tmp_path):
    sim("render", "--size", "96", "--states", "1..2", "-o", tmp_path / "p")
    assert png_size(tmp_path / "p-test1-camera0.png") == (96, 96)
    assert (tmp_path / "p-test1-camera0.png").read_bytes() != (tmp_path / "p-test2-camera0.png").read_bytes()


def test_address_space(tmp_path):
    """A driver that finds no room for its libraries says that there are none: the limit is named."""
    r = subprocess.run(["bash", "-c", f"ulimit -v 150000; {BIN}/gantry sim render -o {tmp_path}/p"], capture_output=True, text=True)
    assert r.returncode != 0 and "ulimit -v is 146 MiB, which may be too little: renderer: " in r.stderr, r.stderr


def test_bench():
    rows = sim("bench", "--seconds", "1", "--slots", "2", "--processes", "1,2", "--pictures", "0,1", "--size", "64").splitlines()
    rows = [line.split() for line in rows if re.match(r" +\d", line)]
    assert [row[:3] for row in rows] == [["0", "1", "2"], ["0", "2", "2"], ["1", "1", "2"], ["1", "2", "2"]]
    assert all(float(row[3]) > 0 for row in rows)
    assert float(rows[0][5]) == 0 and float(rows[2][5]) > 10      # of the time, in the renderer
    assert rows[0][8:] == ["-"] and "llvmpipe" in rows[3][8] and rows[3][-2:] == ["in", "software"]     # who drew


@pytest.mark.parametrize("step, where", [(1, "died while it opened"), (100, "died")])
def test_bench_whose_children_die(step, where):
    """It ends with a line and does not wait for ever."""
    r = subprocess.run([BIN / "gantry", "sim", "bench", "--pictures", "0", "--processes", "2", "--slots", "1"], capture_output=True, text=True,
                       timeout=PATIENCE, cwd=TOP, env=os.environ | {"GANTRY_FAULTS": f"sim.step=abort@{step}"})
    assert r.returncode != 0 and len(r.stderr.splitlines()) == 1 and where in r.stderr, r.stderr


def test_films_with_a_dot(tmp_path):
    """A name's directory may have dots; each state has its own film."""
    (tmp_path / "a.b").mkdir()
    sim("play", "--states", "0..1", "--steps", "2", "-o", tmp_path / "a.b" / "film")
    assert len(list((tmp_path / "a.b").iterdir())) == 2 and list(tmp_path.iterdir()) == [tmp_path / "a.b"]


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_video(tmp_path):
    sim("play", "--states", "0", "--video", tmp_path / "v.mp4", "--size", "64")
    r = subprocess.run(["ffprobe", "-loglevel", "error", "-count_frames", "-show_entries", "stream=width,height,nb_read_frames",
                        "-of", "csv=p=0", tmp_path / "v.mp4"], capture_output=True, text=True)
    assert r.stdout.startswith("64,64,"), r.stdout + r.stderr


@pytest.mark.parametrize("args, words", [
    (["list", "--suite", "libero_ten"], "no suite is called 'libero_ten'"),
    (["play", "--task", "99"], ", not 99 (gantry sim list --suite tabletop)"),
    (["play", "--task", "dance"], "no task 'dance'"),
    (["play", "--states", "4..2"], "--states: '4..2'"),
    (["play", "--split", "exam"], "train, val or test"),
    (["play", "--policy", "/nowhere"], "'/nowhere' is not expert"),
    (["play", "--camera", "2", "-o", "x.png"], "cameras 0 to 1, not 2"),
    (["render", "--size", "3"], "--size: '3' is not a number from 8 to 4096"),
    (["render", "--renderer", "fast"], "--renderer: 'fast'"),
    (["bench", "--slots", "0"], "--slots: at least 1"),
])
def test_refusals(args, words):
    r = gantry("sim", *args)
    assert r.returncode != 0 and words in r.stderr and len(r.stderr.splitlines()) == 1, r.stderr


def test_bad_actions(tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("# seven\n0 0 0 0 0 0 1\n0 0 0\n")
    r = gantry("sim", "play", "--policy", short)
    assert r.returncode != 0 and "short.txt: line 3: 3 numbers; an action has 7" in r.stderr, r.stderr
    nan = tmp_path / "nan.txt"
    nan.write_text("nan 0 0 0 0 0 1\n")
    r = gantry("sim", "play", "--policy", nan)
    assert r.returncode != 0 and "step 0" in r.stderr, r.stderr


def test_libero_list():
    """Known by name, also where its files are not."""
    listed = sim("list", "--suite", "libero_goal")
    assert re.search(r" 7 +300 +20 +2 +50 +turn_on_the_stove\n +\"turn on the stove\"", listed), listed


@needs_libero
def test_libero_expert(tmp_path):
    """The scripted expert takes the soup, in both orders of a substep; its film and both cameras."""
    for substeps in ("reference", "onepass"):
        text = sim("play", "--suite", "libero_object", "--task", "0", "--states", "0", "--substeps", substeps)
        assert re.search(r"test 0 +success", text), text
    sim("render", "--suite", "libero_object", "--task", SOUP, "--size", "64", "-o", tmp_path / "soup")
    assert png_size(tmp_path / "soup-test0-camera1.png") == (64, 64)
