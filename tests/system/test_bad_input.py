"""What people and strangers get wrong: one clear line, a non-zero exit or a refusal, and nobody dies of it.

Models: test_bad_models.py. Run directories and their disks: test_bad_places.py."""
import os
import re
import socket
import subprocess

import pytest

from conftest import BIN, TOP, gantry
from refusals import a_port, coordinator, up_refuses


def test_unknown_key(make_cluster):
    cluster = make_cluster()
    cluster.config.write_text(cluster.config.read_text().replace('"iterations"', '"iteratoins"'))
    for r in (coordinator(cluster), gantry("up", cluster.config)):
        assert r.returncode != 0
        assert "iteratoins" in r.stderr and "nearest" in r.stderr and "run.yaml:" in r.stderr, r.stderr
    assert not (cluster.run / "ledger.sqlite").exists()


@pytest.mark.parametrize("changes, stages, says", [
    ({"suite": {"name": "tabeltop"}}, None, ["suite.name", "'tabeltop'", "libero_spatial"]),
    ({"suite": {"tasks": ["no_such_task"]}}, None, ["suite.tasks", "'no_such_task'", "gantry sim list"]),
    ({"cluster": {"listen": "nonsense"}}, None, ["cluster.listen", "'nonsense'", "tcp://HOST:PORT"]),
    ({"status": {"http": "127.0.0.1:99999"}}, None, ["status.http: 127.0.0.1:99999: there is no port 99999"]),
    ({"cluster": {"listen": "tcp://127.0.0.1:99999"}}, None, ["cluster.listen: ", "there is no port 99999"]),
    ({}, [], ["stages", "there are none"]),
    ({}, [{"demos": {}}, {"prm": {}}, {"rl": {}}, {"eval": {"policies": ["last", "sft"], "n": [1, 4], "search_judge": "value"}}],
     ["stages[3].eval.search_judge: value asks the policy's critic, and sft has none"]),
    ({}, [{"demos": {}}, {"prm": {}}, {"eval": {"policies": ["last"], "n": [4], "search_judge": "value"}}], ["stages[2].eval.search_judge: ", "last has none"]),
])
def test_found_before_anything_starts(make_cluster, changes, stages, says):
    up_refuses(make_cluster(changes, stages), *says)


def test_what_is_wrong_on_every_host(tmp_path):
    """`gantry config check` finds it, too."""
    (tmp_path / "token").write_text("0123456789abcdef")
    (tmp_path / "token").chmod(0o644)
    for changes, says in (
            ('status: {http: "127.0.0.1:99999"}', "status.http: 127.0.0.1:99999: there is no port 99999"),
            ('status: {http: "8080"}', "status.http: 8080: not an address"),
            ('status: {http: "127.0.0.1:0", token_file: token}', "token can be read by others: chmod 600"),
            ("cluster: {listen: tcp://127.0.0.1:99999}", "cluster.listen: 'tcp://127.0.0.1:99999': there is no port 99999"),
            ("cluster: {listen: ipc:///tmp/a}", "cluster.listen: ipc:///tmp/a: it is for members on other hosts"),
            ("cluster: {learners: [{device: cpu, address: here}]}", "cluster.learners[0].address: 'here' is not an address"),
            ("timing: {heartbeat_ms: 6000}", "timing.lease_ttl_ms: heartbeats say how far episodes are")):
        (tmp_path / "run.yaml").write_text(changes + "\nstages: [demos: {}]\n")
        r = subprocess.run([BIN / "gantry", "config", "check", "run.yaml"], capture_output=True, text=True, cwd=tmp_path)
        assert r.returncode == 1 and says in r.stderr and len(r.stderr.splitlines()) == 1, r.stderr


def test_all_that_is_wrong_at_once(tmp_path):
    """A line for each fault. LIBERO's tasks are known by name, also where its files are not."""
    env = {k: v for k, v in os.environ.items() if k != "LIBERO_ROOT"}
    for text, lines in (
            ("run: {nmae: x, seed: -1}\nsuit: {}\nstages: [sft: {steps: x}]\n",
             ["run.yaml:1:7: run.nmae: unknown key; nearest: name", "run.yaml:1:22: run.seed: -1", "run.yaml:2:1: suit: unknown section; nearest: suite",
              "run.yaml:3:23: stages[0].sft.steps: x"]),
            ("suite: {name: libero_goal, tasks: [turn_on_the_stove, turnon_the_stov, put_it_away]}\nstatus: {http: '127.0.0.1:99999'}\n"
             "cluster: {listen: nonsense}\nstages: [demos: {}]\n",
             ["warning: LIBERO's files are not here", "run.yaml: cluster.listen: 'nonsense'", "run.yaml: status.http: 127.0.0.1:99999", "run.yaml: suite.tasks: suite libero_goal has no task 'turnon_the_stov'; nearest: turn_on_the_stove;",
              "run.yaml: suite.tasks: suite libero_goal has no task 'put_it_away'; `gantry sim list --suite libero_goal` lists them"]),
            # what only its meaning tells, beside keys that are wrong in the same file and the same sections
            ("run: {nmae: x}\nsuite: {name: libero_goal, tasks: [turnon_the_stov], image: 8}\nstatus: {http: '127.0.0.1:99999', htpt: x}\n"
             "cluster: {listen: nonsense, slots: x, learners: [{device: cpu, address: here}], actors: [{address: 'tcp://127.0.0.1:99999'}]}\n"
             "stages: [demos: {}, eval: {policies: [demonstrator, sft, best]}, sft: {steps: x}, eval: {policies: [demonstrator]}]\n",
             ["run.yaml:1:7: run.nmae: ", "run.yaml:2:61: suite.image: 8", "run.yaml:3:35: status.htpt: ", "run.yaml:4:36: cluster.slots: x", "run.yaml:5:79: stages[2].sft.steps: x", "warning: LIBERO's files are not here",
              "run.yaml: cluster.listen: 'nonsense'", "run.yaml: cluster.learners[0].address: 'here'", "run.yaml: cluster.actors[0].address: 'tcp://127.0.0.1:99999'", "run.yaml: status.http: 127.0.0.1:99999",
              "run.yaml: suite.tasks: suite libero_goal has no task 'turnon_the_stov'; nearest: turn_on_the_stove;"]),
            # tasks of a suite that could not be read may be right
            ("suite: {nmae: libero_goal, tasks: [turn_on_the_stove]}\nstages: [demos: {}]\n", ["run.yaml:1:9: suite.nmae: "]),
            ("run:\n" + "".join(f"  k{i}: 1\n" for i in range(23)), [f"run.yaml:{i + 2}:3: run.k{i}: unknown key" for i in range(20)] + ["run.yaml: and 3 faults more"])):
        (tmp_path / "run.yaml").write_text(text)
        r = subprocess.run([BIN / "gantry", "config", "check", "run.yaml"], capture_output=True, text=True, cwd=tmp_path, env=env)
        said = r.stderr.splitlines()
        assert r.returncode == 1 and len(said) == len(lines) and all(a.startswith(b) for a, b in zip(said, lines)), r.stderr
    r = subprocess.run([BIN / "gantry", "sim", "list", "--suite", "libero_goal"], capture_output=True, text=True, env=env, check=True)
    assert "turn_on_the_stove" in r.stdout


def test_output_that_cannot_be_written():
    """Whoever reads a half-written file has to learn that it is half."""
    with open("/dev/full", "w") as full:
        for words in (["help"], ["config", "docs"], ["sim", "list"]):
            r = subprocess.run([BIN / "gantry", *words], stdout=full, stderr=subprocess.PIPE, text=True, cwd=TOP)
            assert r.returncode != 0 and "standard output" in r.stderr, (words, r.stderr)


def test_unknown_command():
    for word, says in (("stauts", "nearest: status"), ("xyzzy", "`gantry help` lists them")):
        r = gantry(word)
        assert r.returncode == 2 and len(r.stderr.splitlines()) == 1 and says in r.stderr, r.stderr
    r = gantry("replay", "--help")
    assert r.returncode == 0 and r.stdout.startswith("usage: gantry replay")


def test_help_is_asked_for_behind_a_verb_too(tmp_path):
    for verb in (["keys", "init"], ["keys", "add"], ["config", "check"], ["history", "check"], ["model", "new"], ["deploy", "systemd"]):
        r = subprocess.run([BIN / "gantry", *verb, "--help"], capture_output=True, text=True, cwd=tmp_path)
        assert r.returncode == 0 and r.stdout.startswith(f"usage: gantry {verb[0]}") and not r.stderr, (verb, r.stderr)
    assert not list(tmp_path.iterdir())


def test_help_fits_a_terminal():
    commands = re.findall(r"^  (\w+)  ", gantry("--help").stdout, re.M)
    assert {"up", "eval", "sim"} < set(commands), commands
    asked = [["gantry", "--help"], ["gantry", "eval", "--suite", "--help"], *(["gantry", command, "--help"] for command in commands),
             *([program.name, "--help"] for program in sorted(BIN.glob("gantry-*")))]
    for program, *words in asked:
        r = subprocess.run([BIN / program, *words], capture_output=True, text=True)
        assert r.returncode == 0 and re.match("usage: gantry", r.stdout, re.I), (program, words, r.stderr)
        assert max(map(len, r.stdout.splitlines())) <= 100, (program, words, r.stdout)


def test_port_in_use(make_cluster):
    with a_port() as port:
        cluster = make_cluster({"status": {"http": f"127.0.0.1:{port}"}})
        up_refuses(cluster, f"127.0.0.1:{port}", "status.http")
        r = coordinator(cluster)
    assert r.returncode != 0
    assert f"127.0.0.1:{port}" in r.stderr and "use" in r.stderr.lower(), r.stderr


def test_listen_in_use(make_cluster):
    with a_port() as port:
        up_refuses(make_cluster({"cluster": {"listen": f"tcp://127.0.0.1:{port}"}}), f"127.0.0.1:{port} is in use", "cluster.listen")
    up_refuses(make_cluster({"cluster": {"listen": "tcp://203.0.113.7:5555"}}), "203.0.113.7:5555 is not an address of this host")


def test_address_of_a_server_in_use(make_cluster):
    """Or given twice: found before any daemon is started, not by one that fails again and again."""
    with a_port() as port:
        taken = f"tcp://127.0.0.1:{port}"
        up_refuses(make_cluster({"cluster": {"listen": "tcp://127.0.0.1:*", "learners": [{"device": "cpu", "address": taken}]}}),
                   f"cluster.learners[0].address: {taken} is in use")
    up_refuses(make_cluster({"cluster": {"listen": taken, "actors": [{"device": "cpu"}, {"device": "cpu", "address": taken}]}}),
               f"cluster.actors[1].address: {taken} is the address of cluster.listen, too")


def test_asked_of_a_run_that_is_down(make_cluster, tmp_path):
    """Whatever is asked of it: how far it came, and the command that goes on; no run at all is none that could be started."""
    verbs = (["status"], ["drain"], ["drain", "env-worker-0"], ["scale", "env_worker", "2"], ["cordon", "env-worker-0"], ["prm", "rollback"])

    def all_say(run, text):
        for verb, *rest in verbs:
            r = gantry(verb, *rest[:verb == "prm"], run, *rest[verb == "prm":])
            assert r.returncode == 1 and text in r.stderr and len(r.stderr.splitlines()) == 1, (verb, r.stderr)
    all_say(tmp_path, f"{tmp_path}: there is no run in it (no config.yaml); name a run's directory")
    cluster = make_cluster(stages=[{"demos": {"episodes": 2, "style": "clean"}}, {"demos": {"episodes": 100000, "style": "clean"}}])
    cluster.start()
    cluster.until(lambda s: s and s["stage_number"] == 1, "the second stage")
    r = gantry("scale", cluster.run, "env_worker", "2")
    assert r.returncode == 1 and "no `gantry up` is running there, but a coordinator is" in r.stderr, r.stderr
    cluster.drain()
    all_say(cluster.run, f"1 of 2 stages are done, the next is demos2, and `gantry up {cluster.run}` goes on")
    (cluster.run / "life").write_text("4711 1\n")           # as a job has it that Slurm queues again
    all_say(cluster.run, "the next is demos2, and Slurm's job 4711 goes on when its turn comes (`squeue --job 4711` shows whether it is queued; "
                         f"if not, `gantry up {cluster.run}`)")
    (cluster.run / "ended").touch()                         # it was cancelled: nothing is queued
    all_say(cluster.run, f"1 of 2 stages are done, the next is demos2, and `gantry up {cluster.run}` goes on")
    cluster = make_cluster(stages=[{"demos": {"episodes": 2, "style": "clean"}}])
    cluster.start()
    cluster.until_finished()
    cluster.until(lambda s: s is None, "its daemons to end")
    all_say(cluster.run, f"the run is finished, no coordinator is running there; `gantry report {cluster.run}` writes its page")


def test_arguments_that_make_no_sense(tmp_path):
    """A daemon without a run, or told to draw with what it does not know: one line, and a status that says not to try again."""
    for role, *args in (["coordinator"], ["learner"], ["env-worker"], ["actor", "--listen", f"ipc://{tmp_path}/a.ipc"], ["prm-server"],
                        ["env-worker", "--run-dir", "/nowhere", "--render", "paper"]):
        r = subprocess.run([BIN / f"gantry-{role}", *args], capture_output=True, text=True, timeout=60)
        assert r.returncode == 64 and len(r.stderr.strip().splitlines()) == 1, (role, r.returncode, r.stderr)


def test_arguments_that_cannot_be_used(tmp_path):
    """A device, a directory, an address that is not there: one line that names it, and a status that says not to try again."""
    listen, join = ["--listen", f"ipc://{tmp_path}/a.ipc"], ["--join", f"ipc://{tmp_path}/c.ipc"]
    for named, role, *args in (["gpu", "actor", *join, *listen, "--device", "gpu"], ["cuda:99", "prm-server", *join, *listen, "--device", "cuda:99"],
                               ["cuda:99", "learner", *join, *listen, "--device", "cuda:99"],
                               ["/nowhere", "learner", *join, *listen, "--run-dir", "/nowhere"], ["/dev/null", "learner", *join, "--run-dir", "/dev/null"],
                               ["/nowhere/a.ipc", "actor", *join, "--listen", "ipc:///nowhere/a.ipc"], ["what://", "env-worker", "--join", "what://"]):
        r = subprocess.run([BIN / f"gantry-{role}", *args], capture_output=True, text=True, timeout=60)
        assert r.returncode == 78 and len(r.stderr.strip().splitlines()) == 1 and named in r.stderr, (role, args, r.returncode, r.stderr)


def test_page_token(make_cluster, tmp_path):
    """A file that others can read, or that is not there, stops the coordinator with a line that does not say what is in it."""
    token = tmp_path / "token"
    cluster = make_cluster({"status": {"http": "127.0.0.1:0", "token_file": str(token)}})
    r = coordinator(cluster)
    assert r.returncode == 78 and str(token) in r.stderr and "No such file" in r.stderr, r.stderr
    token.write_text("a-secret-that-nobody-says\n")
    token.chmod(0o644)
    r = coordinator(cluster)
    assert r.returncode == 78 and "chmod 600" in r.stderr and "a-secret" not in r.stderr, r.stderr


@pytest.mark.parametrize("line", ["", "prm swap 77", "prm swap 1 at x", "prm rollback", "cordon x", "nonsense", "x" * 10000])
def test_admin_lines(make_cluster, line):
    cluster = make_cluster(stages=[{"demos": {"episodes": 100000, "style": "clean"}}])
    cluster.run.mkdir()
    cluster.spawn("coordinator")
    cluster.until(lambda s: s, "the coordinator")
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect(str(cluster.run / "sock" / "status.sock"))
        s.sendall(line.encode() + b"\n")
        try:
            answer = s.recv(1 << 16).decode()
        except ConnectionResetError:
            answer = ""
    assert answer.startswith("error") or answer == "" or line == "", answer
    assert cluster.until(lambda s: s, "it still answers")


def test_a_key_that_nobody_has(tmp_path):
    for run, says in (tmp_path, "nobody is let in, so there is no rack7 to shut out"), (tmp_path / "none", "name a run's directory"):
        done = gantry("keys", "revoke", run, "rack7")
        assert done.returncode == 1 and says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir())
