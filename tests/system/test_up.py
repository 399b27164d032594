"""gantry up, status and drain against stand-in daemons: what the supervisor does when children live, die and end.

The stand-ins lie beside a copy of bin/gantry (it looks for daemons beside itself) and are told by files in the run
directory how to behave, so no test waits for anything but the thing it tests.
"""
import json
import os
import pathlib
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

STAND_IN = """#!{python} -S
import ctypes, os, pathlib, signal, socket, sys, threading
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
role = os.path.basename(sys.argv[0]).removeprefix("gantry-")
run = pathlib.Path(arguments["--run-dir"])
assert "--die-with-parent" in sys.argv
ctypes.CDLL(None).prctl(1, signal.SIGKILL)      # PR_SET_PDEATHSIG: so they do
if os.getppid() == 1:
    sys.exit(1)
with open(run / "starts", "a") as file:
    file.write(f"{{role}} {{os.getpid()}}\\n")
if (run / f"fail-{{role}}").exists():
    print(f'level=error role={{role}} msg="cannot start" why="told to"', file=sys.stderr)
    sys.exit(1)
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
if role == "coordinator" and not (run / "mute").exists():
    sock = run / "sock"
    sock.mkdir(exist_ok=True, mode=0o700)
    os.chdir(sock)
    if os.path.exists("status.sock"):
        os.unlink("status.sock")
    server = socket.socket(socket.AF_UNIX)
    server.bind("status.sock")
    server.listen()
    def serve():
        while True:
            peer, _ = server.accept()
            command = peer.makefile().readline().strip()
            with open(run / "commands", "a") as file:
                file.write(command + "\\n")
            answer = (run / "status.json").read_text() if command == "status" else "noted"
            try:
                peer.sendall(f"ok\\n{{answer}}\\n\\n".encode())
            except OSError:
                pass                                    # whoever asked has not waited so long
            peer.close()
            if (command.startswith("drain") and not (run / "slow").exists()) or "finished" in answer:
                ended.set()
    threading.Thread(target=serve, daemon=True).start()
while not ended.wait(0.2):
    pass
"""

STATUS = {
    "run": "test", "dir": "runs/test", "build": "b1", "seed": 7, "up_s": 65, "state": "playing", "waiting_for": "", "stage": "demos",
    "stage_number": 0, "stages": 1, "iteration": 0, "name": "demos", "episodes": {"planned": 8, "journaled": 3, "failed": 0},
    "success": 0.5, "policy_version": 0, "prm_version": 0, "episodes_since_start": 3, "env_steps_since_start": 90,
    "members": [{"member": 1, "role": "env_worker", "state": "alive", "host": "h", "pid": 9, "device": "", "slots": 8, "leases": 5,
                 "delivered": 3, "versions": [], "gauges": {"rss_peak_bytes": 5e7}}],
    "history": [{"stage": "demos", "state": "open", "wall_s": 61}], "success_curve": [],
}


class Run:
    def __init__(self, tmp):
        self.tmp, self.dir, self.process = tmp, tmp / "run", None
        self.bin = tmp / "bin"
        self.bin.mkdir()
        shutil.copytree(ROOT / "models" / "tiny", tmp / "model")
        shutil.copy(ROOT / "bin" / "gantry", self.bin / "gantry")
        for role in ["coordinator", "learner", "actor", "prm-server", "env-worker"]:
            path = self.bin / f"gantry-{role}"
            path.write_text(STAND_IN.format(python=sys.executable))
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.configure()
        self.dir.mkdir()
        self.status(**{})

    def configure(self, seed=7, workers=1):
        (self.tmp / "run.yaml").write_text(f"""
run: {{name: test, dir: {self.dir}, seed: {seed}}}
policy: {{init: {self.tmp}/model}}
stages: [{{demos: {{episodes: 8}}}}]
cluster: {{env_workers: {workers}, slots: 2, prm_servers: []}}
""")

    def status(self, **changes):
        temporary = self.dir / "status.json.new"
        temporary.write_text(json.dumps({**STATUS, **changes}))
        temporary.rename(self.dir / "status.json")

    def gantry(self, *arguments):
        return subprocess.run([self.bin / "gantry", *map(str, arguments)], cwd=self.tmp, capture_output=True, text=True, timeout=60)

    def up(self):
        self.process = subprocess.Popen([self.bin / "gantry", "up", "run.yaml"], cwd=self.tmp, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return self

    def starts(self, role=None):
        path = self.dir / "starts"
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [int(pid) for name, pid in rows if role in (None, name)]

    def wait(self, condition, what):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"never happened: {what}"
            assert self.process.poll() is None, self.process.stdout.read()
            time.sleep(0.02)

    def commands(self):
        path = self.dir / "commands"
        return path.read_text() if path.exists() else ""

    def read_to(self, words):
        """Its output up to the line with these words."""
        watchdog = threading.Timer(60, self.process.kill)
        watchdog.start()
        while words not in (line := self.process.stdout.readline()):
            assert line, f"it ended without a word of {words}"
        watchdog.cancel()

    def end(self):
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    yield run
    if run.process and run.process.poll() is None:
        run.process.kill()
        run.process.communicate()


def gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_runs_to_its_end(run):
    run.up()
    run.wait(lambda: len(run.starts()) == 4 and "status" in run.commands(), "four children and a status call")
    assert stat.S_IMODE((run.dir / "sock").stat().st_mode) == 0o700         # it may be under /tmp, and goes with the run
    run.status(state="paused", waiting_for="space in /x")
    seen = run.commands().count("status")
    run.wait(lambda: run.commands().count("status") >= seen + 2, "two looks at a full disk")
    for iteration, rate in enumerate((0.02, 0.25, 35), 50):
        run.status(state="training", iteration=iteration, updates_per_s=rate)
        seen = run.commands().count("status")
        run.wait(lambda: run.commands().count("status") >= seen + 2, "two looks at the speed")
    run.status(state="finished")
    code, out = run.end()
    assert code == 0, out
    assert "  50 s an update" in out and "  0.2 updates/s" in out and "  35 updates/s" in out, out
    assert "(stage 1 of 1)  playing 3/8 episodes  success 0.50" in out and out.count("paused for space in /x") == 1
    assert "the run is finished" in out
    assert all(gone(pid) for pid in run.starts())
    assert (run.dir / "config.yaml").exists() and (run.dir / "log" / "coordinator.log").exists()


def test_started_without_descriptors(run):
    """As by a launcher that closes them."""
    run.process = subprocess.Popen(["sh", "-c", f"exec {shlex.quote(str(run.bin / 'gantry'))} up run.yaml <&- >&- 2>&-"], cwd=run.tmp)
    try:
        run.wait(lambda: len(run.starts()) == 4 and "status" in run.commands(), "four children and a status call")
        run.status(state="finished")
        assert run.process.wait(60) == 0
    finally:
        run.process.kill()


def test_restarts_what_was_killed(run):
    run.up()
    run.wait(lambda: len(run.starts()) == 4, "four children")
    os.kill(run.starts("actor")[0], signal.SIGKILL)
    run.wait(lambda: len(run.starts("actor")) == 2, "the actor again")
    os.kill(run.starts("coordinator")[0], signal.SIGKILL)
    run.wait(lambda: len(run.starts("coordinator")) == 2, "the coordinator again")
    worker, asked = run.starts("env-worker")[0], run.commands().count("status")      # none of these by this coordinator
    run.wait(lambda: run.commands().count("status") > asked, "a status call")
    os.kill(worker, signal.SIGKILL)
    run.wait(lambda: f" {worker} ended signal 9" in run.commands(), "the coordinator hears of the worker's end")
    run.status(state="finished")
    code, out = run.end()
    assert code == 0, out
    assert f"actor-0 (pid {run.starts('actor')[0]}) ended: signal 9 (Killed); started again" in out


def test_gives_up_on_what_keeps_failing(run):
    (run.dir / "fail-learner").write_text("")
    code, out = run.up().end()
    assert code == 1
    assert len(run.starts("learner")) == 5
    assert 'its last words: level=error role=learner msg="cannot start" why="told to"' in out
    assert "learner-0 has ended for good (exit status 1): the run stops here" in out
    assert all(gone(pid) for pid in run.starts())


def test_drained_from_elsewhere_while_the_coordinator_dies(run):
    """Its next life would not know of the drain and go on: everything ends instead."""
    run.status(state="draining")
    run.up()
    run.wait(lambda: len(run.starts()) == 4 and run.commands().count("status") >= 2, "a status call that says so, and is over")
    os.kill(run.starts("coordinator")[0], signal.SIGKILL)
    code, out = run.end()
    assert code == 0 and "drained before its end" in out and "started again" not in out, out
    assert len(run.starts("coordinator")) == 1 and all(gone(pid) for pid in run.starts())


def test_drain_is_kept_as_soon_as_it_is_answered(run):
    """The coordinator dies before any look at its status could have told of the drain."""
    (run.dir / "slow").write_text("")
    run.up()
    run.wait(lambda: len(run.starts()) == 4 and "status" in run.commands(), "four children and a status call")
    assert run.gantry("drain", run.dir).returncode == 0
    os.kill(run.starts("coordinator")[0], signal.SIGKILL)
    code, out = run.end()
    assert code == 0 and "drained before its end" in out and "started again" not in out, out
    assert len(run.starts("coordinator")) == 1 and all(gone(pid) for pid in run.starts())


def test_a_coordinator_that_does_not_answer(run):
    """Status says that `gantry up` is there; and in a directory with blanks and quotes, what is printed to be typed can be."""
    run.dir = run.tmp / "Mary's run"
    run.dir.mkdir()
    run.configure()
    (run.dir / "mute").write_text("")
    run.up()
    run.wait(lambda: run.starts("coordinator"), "a coordinator")
    asked = run.gantry("status", run.dir)
    assert asked.returncode == 1 and "`gantry up`, which is there, starts it again by itself" in asked.stderr, asked.stderr
    run.process.send_signal(signal.SIGINT)
    code, out = run.end()
    assert code == 0 and f"`gantry status {shlex.quote(str(run.dir))}` in another" in out.replace("'\\''", "'\"'\"'"), out


def test_logs_are_kept_short(run):
    """What a child wrote lies in NAME.log.1 once it is long, and it goes on writing to NAME.log."""
    run.up()
    log, older = run.dir / "log" / "learner-0.log", run.dir / "log" / "learner-0.log.1"
    run.wait(lambda: len(run.starts()) == 4, "four children")
    with open(log, "ab") as child:                      # appends, as it does
        for turn in (b"first", b"second"):
            child.write(turn + b"\n")
            child.flush()
            child.truncate(33 << 20)
            run.wait(lambda: older.exists() and log.stat().st_size == 0, "a log that is put away")
            with open(older, "rb") as kept:
                assert kept.readline().strip() == turn and older.stat().st_size == 33 << 20
        child.write(b"on it goes\n")
        child.flush()
    assert log.read_bytes() == b"on it goes\n"
    assert sorted(p.name for p in log.parent.glob("learner-0*")) == [log.name, older.name]


def test_ctrl_c_drains(run):
    run.up()
    run.wait(lambda: len(run.starts()) == 4 and "status" in run.commands(), "four children and a status call")
    run.process.send_signal(signal.SIGINT)
    code, out = run.end()
    assert code == 0, out
    assert "drain SIGINT" in run.commands()
    assert f"drained before its end; `gantry up {run.dir}/config.yaml` goes on from here" in out
    assert all(gone(pid) for pid in run.starts())


def leave_at_once(run):
    run.process.send_signal(signal.SIGINT)
    run.read_to("draining (SIGINT)")
    run.process.send_signal(signal.SIGTERM)
    run.read_to("leaving now")
    code, out = run.end()
    assert code == 1 and out == "", (code, out)


def test_leaving_at_once_while_a_call_is_under_way(run):
    """To a coordinator that stands still: it ends with it."""
    run.up()
    run.wait(lambda: len(run.starts()) == 4 and "status" in run.commands(), "four children and a status call")
    os.kill(run.starts("coordinator")[0], signal.SIGSTOP)
    leave_at_once(run)


def test_leaving_at_once_while_many_calls_wait(run):
    """They are for a coordinator that stands still: it is not asked them one by one, each until its time is up."""
    run.up()
    run.wait(lambda: len(run.starts()) == 4, "four children")
    os.kill(run.starts("coordinator")[0], signal.SIGSTOP)
    for life in range(1, 16):           # the coordinator is to be told of each
        run.wait(lambda: len(run.starts("actor")) == life, "the actor")
        os.kill(run.starts("actor")[-1], signal.SIGKILL)
    leave_at_once(run)


def test_a_reward_model_in_doubt_is_said_once(run):
    """One that its gate did not let pass: as its stage begins, and by `gantry status` as long as it lasts."""
    run.status(stage="rl", prm_version=3, prm_doubt="promoted by force: AUC .5")
    run.up()
    run.wait(lambda: run.commands().count("status") >= 3, "a few looks")
    said = "rl: scored by reward model version 3, which did not pass its gate: promoted by force: AUC .5\n"
    assert said in run.gantry("status", run.dir).stdout
    run.status(state="finished")
    code, out = run.end()
    assert code == 0 and out.count("gantry: warning: " + said) == out.count("its gate") == 1, out


def test_a_supervisor_does_not_wait_for_ever(run):
    """SIGTERM: the coordinator is told by when, and then has time to let its members leave."""
    run.up()
    run.wait(lambda: len(run.starts()) == 4 and "status" in run.commands(), "four children and a status call")
    run.process.send_signal(signal.SIGTERM)
    code, out = run.end()
    assert code == 0 and "if that takes no longer than 120 s" in out, out
    assert "drain within 120 SIGTERM" in run.commands()


def test_the_same_command_resumes_after_kill_9(run):
    """That real daemons die with it is test_lifecycle's; the stand-ins are killed by hand."""
    run.up()
    run.wait(lambda: len(run.starts()) == 4, "four children")
    pids = run.starts()
    run.process.kill()
    run.process.communicate()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    run.up()
    run.wait(lambda: len(run.starts()) == 8 and "status" in run.commands(), "the same command again")
    run.status(state="finished")
    code, out = run.end()
    assert code == 0 and "resumed" in out


def test_its_own_config_can_be_named_from_anywhere(run):
    run.configure()
    (run.tmp / "run.yaml").write_text((run.tmp / "run.yaml").read_text().replace(f"{run.tmp}/model", "model").replace(str(run.dir), "run"))
    run.up().wait(lambda: len(run.starts("coordinator")) == 1, "the coordinator starts")
    run.process.kill()
    run.end()
    own = run.dir / "config.yaml"
    text = own.read_text()
    assert f"init: {run.tmp}/model" in text and f"dir: {run.dir}" in text
    run.process = subprocess.Popen([run.bin / "gantry", "up", own], cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    run.wait(lambda: len(run.starts("coordinator")) == 2, "it goes on")
    run.process.kill()
    assert "resumed" in run.end()[1] and own.read_text() == text
    run.up().wait(lambda: len(run.starts("coordinator")) == 3, "so does the file that it was made from")
    run.process.kill()
    assert "resumed" in run.end()[1] and own.read_text() == text
    moved = run.dir.rename(run.tmp / "moved")           # and where it lies now is meant, though it has no ledger
    run.dir = moved
    run.process = subprocess.Popen([run.bin / "gantry", "up", moved], cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    run.wait(lambda: len(run.starts("coordinator")) == 4, "it goes on where it lies")
    run.process.kill()
    assert f"run test in {moved}, resumed" in run.end()[1]


def test_refuses_another_configuration(run):
    run.up()
    run.wait(lambda: "status" in run.commands(), "a status call")
    second = run.gantry("up", "run.yaml")
    assert second.returncode == 1
    assert f"held by process {run.process.pid} " in second.stderr
    run.status(state="finished")
    run.end()
    run.configure(seed=8)
    other = run.gantry("up", "run.yaml")
    assert other.returncode == 1
    assert "made with another configuration: run.seed is 7 there and 8 here" in other.stderr


def test_refuses_a_missing_checkpoint(run):
    shutil.rmtree(run.tmp / "model")
    result = run.gantry("up", "run.yaml")
    assert result.returncode == 1
    assert "policy.init" in result.stderr and "name a Hugging Face OpenVLA directory" in result.stderr
    assert run.starts() == []


def test_refuses_a_broken_checkpoint(run):
    weights = run.tmp / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    result = run.gantry("up", "run.yaml")
    assert result.returncode == 1
    assert str(weights) in result.stderr and "cut short" in result.stderr
    assert run.starts() == []


def test_refuses_a_checkpoint_with_a_nan(run):
    weights = run.tmp / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\xff\xff\xff\xff")      # NaN in bf16, f16 and f32
    result = run.gantry("up", "run.yaml")
    assert result.returncode == 1
    assert f"policy.init: {weights}: tensor" in result.stderr and "expected finite numbers" in result.stderr, result.stderr
    assert run.starts() == []


def test_status_and_drain(run):
    nobody = run.gantry("status", run.dir)
    assert nobody.returncode == 1 and "there is no run in it (no config.yaml)" in nobody.stderr
    run.up()
    run.wait(lambda: "status" in run.commands(), "a status call")
    page = run.gantry("status", run.dir)
    assert page.returncode == 0, page.stderr
    assert "env_worker  alive" in page.stdout and "5/8 slots" in page.stdout and "demos        open     1:01" in page.stdout
    assert json.loads(run.gantry("status", "--json", run.dir).stdout)["seed"] == 7 and "tasks:" not in page.stdout
    run.status(tasks=[{"task": "open_drawer", "success": 0.625, "passes": 5, "val": None, "drawn": 0.3},
                      {"task": "pick_up_object", "success": 1, "passes": 5, "val": 0.5, "drawn": 0.7}])
    assert ("tasks:               rl    val    drawn\n"
            "  open_drawer      0.62      -     30 %\n"
            "  pick_up_object   1.00   0.50     70 %\n") in run.gantry("status", run.dir).stdout
    assert "draining" in run.gantry("drain", run.dir).stdout
    code, out = run.end()
    assert "drain gantry-drain" in run.commands()
    assert code == 0 and "drained before its end" in out and "is finished" not in out, out
