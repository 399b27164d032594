"""What people and strangers get wrong: one clear line, a non-zero exit or a refusal, and nobody dies of it."""
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
from contextlib import closing, contextmanager

import fuse_nowhere
import pytest

from conftest import BIN, TOP, gantry


def coordinator(cluster, timeout=60):
    cluster.run.mkdir(exist_ok=True)
    return subprocess.run([BIN / "gantry-coordinator", "--config", cluster.config, "--run-dir", cluster.run], capture_output=True,
                          text=True, timeout=timeout, cwd=TOP)


def up_refuses(cluster, *says):
    """One line, and nothing was started."""
    r = gantry("up", cluster.config)
    assert r.returncode != 0 and len(r.stderr.strip().splitlines()) == 1 and not r.stdout, r.stdout + r.stderr
    for text in says:
        assert text in r.stderr, r.stderr
    assert not list(cluster.run.glob("log/*.log"))


@contextmanager
def a_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        yield s.getsockname()[1]


@contextmanager
def mounted(where, options):
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", where], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"a file system cannot be mounted: {mount.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True)


def test_unknown_key(make_cluster):
    cluster = make_cluster()
    cluster.config.write_text(cluster.config.read_text().replace('"iterations"', '"iteratoins"'))
    for r in (coordinator(cluster), gantry("up", cluster.config)):
        assert r.returncode != 0
        assert "iteratoins" in r.stderr and "nearest" in r.stderr and "run.yaml:" in r.stderr, r.stderr
    assert not (cluster.run / "ledger.sqlite").exists()


def test_missing_checkpoint(make_cluster):
    cluster = make_cluster({"policy": {"init": "/nowhere/at/all"}})
    r = coordinator(cluster)
    assert r.returncode != 0
    assert "/nowhere/at/all" in r.stderr, r.stderr
    r = gantry("config", "check", cluster.config)           # may be right on another host
    assert r.returncode == 0 and r.stderr.startswith("warning: policy.init: /nowhere/at/all: not there"), r.stderr


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


def test_whose_statistics(make_cluster, model, tmp_path):
    """A checkpoint with several data sets' statistics, none of them the suite's: their names, and the key that says which."""
    mine = tmp_path / "mine"
    shutil.copytree(model, mine)
    one = json.loads((mine / "dataset_statistics.json").read_text())["tabletop"]
    (mine / "dataset_statistics.json").write_text(json.dumps({"bridge_orig": one, "fractal": one}))
    up_refuses(make_cluster({"policy": {"init": str(mine)}}), "policy.init: ", "2 data sets (bridge_orig, fractal)", "policy.unnorm_key")
    up_refuses(make_cluster({"policy": {"init": str(mine), "unnorm_key": "bridge"}}), "no statistics of 'bridge'", "of bridge_orig, fractal")
    (mine / "dataset_statistics.json").write_text("{}")
    up_refuses(make_cluster({"policy": {"init": str(mine)}}), "policy.init: ", "has no statistics of any data set")


def test_statistics_that_are_none(make_cluster, model, tmp_path):
    """Quantiles the wrong way round would turn every action round; NaN is no JSON. Said before anything starts."""
    mine = tmp_path / "mine"
    shutil.copytree(model, mine)
    statistics = json.loads((mine / "dataset_statistics.json").read_text())
    action = statistics["tabletop"]["action"]
    for low, high, says in (0.5, -0.5, "number 1 has q01 0.5 and q99 -0.5"), (float("nan"), 1, "dataset_statistics.json"):
        action["q01"][1], action["q99"][1] = low, high
        (mine / "dataset_statistics.json").write_text(json.dumps(statistics))
        up_refuses(make_cluster({"policy": {"init": str(mine)}}), str(mine), "dataset_statistics.json", says)


def test_what_the_policy_looks_at(make_cluster, model, tmp_path):
    """An OpenVLA-OFT policy of two cameras and the robot's state, in a run that sends it neither."""
    oft = tmp_path / "oft"
    assert gantry("model", "oft", model, oft, "--kind", "l1", "--state", "8", "--images", "2", "--width", "32").returncode == 0
    for suite in ({}, {"cameras": 2}, {"state": True}):
        up_refuses(make_cluster({"policy": {"init": str(oft)}, "suite": suite}), "policy.init: ", "looks at 2 pictures and the robot's state",
                   "say cameras: 2, state: true in suite")


def test_rl_of_a_head_without_probabilities(make_cluster, model, tmp_path):
    """An OpenVLA-OFT as it is published is refused with the command that makes one which rl takes; that answers the same."""
    oft, drawn = tmp_path / "oft", tmp_path / "drawn"
    assert gantry("model", "oft", model, oft, "--kind", "l1", "--width", "32").returncode == 0
    up_refuses(make_cluster({"policy": {"init": str(oft)}}), "policy.init: ", f"`gantry model oft {oft} NEW --kind laplace`")
    assert "laplace, 8 actions of 7 dims" in gantry("model", "oft", oft, drawn, "--kind", "laplace", "--scale", ".05").stdout
    answers = [json.loads(gantry("model", "act", d, "open the drawer").stdout)["actions"] for d in (oft, drawn)]
    assert answers[0] == answers[1] and len(answers[0]) == 8 and any(answers[0][7])
    assert "it is an OpenVLA-OFT already" in gantry("model", "oft", drawn, tmp_path / "again", "--kind", "laplace").stderr


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


def test_a_model_that_came_with_gantry(tmp_path):
    """It is found from any directory, also by who looks at the configuration."""
    config = subprocess.run([BIN / "gantry", "demo", "--config"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "run.yaml").write_text(config)
    r = subprocess.run([BIN / "gantry", "config", "check", "run.yaml"], capture_output=True, text=True, cwd=tmp_path)
    assert r.returncode == 0 and r.stderr == "", r.stderr
    r = subprocess.run([BIN / "gantry", "deploy", "systemd", "--config", "run.yaml"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert f"init: {BIN.resolve().parent}/models/tiny\n" in r.stdout and str(tmp_path) not in r.stdout, r.stdout
    (tmp_path / "run.yaml").write_text(config.replace("dir: runs/demo", f"dir: runs/{'d' * 60}"))
    r = subprocess.run([BIN / "gantry", "deploy", "systemd", "--config", "run.yaml"], capture_output=True, text=True, cwd=tmp_path)
    assert r.returncode == 1 and "units need one of at most 54 for their sockets" in r.stderr, r.stdout + r.stderr


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


def test_truncated_checkpoint(make_cluster, model, tmp_path):
    """A shard cut short is refused where it is loaded, with its name."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for f in model.iterdir():
        data = f.read_bytes()
        (broken / f.name).write_bytes(data[: len(data) // 2] if f.suffix == ".safetensors" else data)
    r = gantry("model", "inspect", broken)
    assert r.returncode != 0 and "safetensors" in r.stderr, r.stderr


def test_model_of_another_suite(make_cluster, model, tmp_path):
    """Six numbers an action, or pictures of another size: said before anything starts."""
    other = tmp_path / "six"
    shutil.copytree(model, other)
    stats = json.loads((other / "dataset_statistics.json").read_text())
    for rows in stats["tabletop"].values():
        for key in rows if isinstance(rows, dict) else ():
            rows[key] = rows[key][:6]
    (other / "dataset_statistics.json").write_text(json.dumps(stats))
    for changes, says in (({"policy": {"init": str(other)}}, "its actions have 6 dimensions, the suite tabletop takes 7"),
                          ({"suite": {"image": 32}}, "looks at pictures of 64x64, suite.image is 32")):
        done = gantry("up", make_cluster(changes).config)
        assert done.returncode != 0 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_reward_model_of_another_suite_or_kind(make_cluster, model, tmp_path):
    """prm.init: trained on other pictures, or no backbone that is known: said before anything starts."""
    for name, changes, says in (
            ("chain", {"gantry_image_chain": "rot180+jpeg95+lanczos3"},
             "was trained on pictures of the chain rot180+jpeg95+lanczos3, suite.chain is render"),
            ("kind", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "found LlamaForCausalLM")):
        other = tmp_path / name
        shutil.copytree(model, other)
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | changes))
        done = gantry("up", make_cluster({"prm": {"init": str(other)}}).config)
        assert done.returncode != 0 and "prm.init" in done.stderr and says in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


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


def test_run_dir_that_is_none(make_cluster):
    """A file in its place, or one below a file: what it must be."""
    cluster = make_cluster()
    cluster.run.write_text("")
    r = gantry("up", cluster.config)
    assert r.returncode != 0 and "run.dir must be a directory that this user may write to" in r.stderr, r.stderr
    assert len(r.stderr.strip().splitlines()) == 1 and cluster.run.read_text() == ""


def test_other_config(make_cluster):
    """The run directory of another configuration is not touched."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 2, "style": "clean"}}])
    cluster.start()
    cluster.until_finished()
    before = (cluster.run / "config.yaml").read_text()
    whole = cluster.config.read_text()
    # the latter two were settled when version 0 was made: they are not passed over because it is there
    for section, key, value in ("run", "seed", 999), ("policy", "unnorm_key", "tabletop"), ("policy", "center_crop", 0.9):
        config = json.loads(whole)
        config[section][key] = value
        cluster.config.write_text(json.dumps(config))
        r = coordinator(cluster)
        assert r.returncode != 0 and "another configuration" in r.stderr, r.stderr
        r = gantry("up", cluster.config)
        assert r.returncode != 0 and f"another configuration: {section}.{key} is" in r.stderr, r.stderr
        assert (cluster.run / "config.yaml").read_text() == before


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


def test_lock_is_held(make_cluster):
    cluster = make_cluster(stages=[{"demos": {"episodes": 100000, "style": "clean"}}])
    cluster.start()
    cluster.until(lambda s: s, "the coordinator")
    pid = cluster.of("coordinator")[0].popen.pid
    r = coordinator(cluster)
    assert r.returncode != 0
    assert str(pid) in r.stderr, f"the line should name the holder {pid}: {r.stderr}"
    up_refuses(cluster, "coordinator.lock", f"process {pid} ")      # its members would have joined the other
    assert cluster.of("coordinator")[0].running()
    # A second learner is nobody's member: it would have taken the first one's place.
    first = cluster.until(lambda s: s and [m for m in s["members"] if m["role"] == "learner"], "the learner")[0]
    r = subprocess.run([BIN / "gantry-learner", "--join", cluster.run, "--run-dir", cluster.run], capture_output=True, text=True, timeout=60)
    assert r.returncode != 0 and f"learner.lock: the run directory is held by process {first['pid']} " in r.stderr, r.stderr
    assert [m["member"] for m in cluster.status()["members"] if m["role"] == "learner"] == [first["member"]]


def test_run_directory_of_a_newer_gantry(make_cluster):
    """Its ledger has a layout that this one does not know: refused with both numbers, and left as it is."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 2, "style": "clean"}}])
    cluster.start()
    cluster.until_finished()
    with closing(sqlite3.connect(cluster.run / "ledger.sqlite")) as db:
        db.execute("pragma user_version = 99")
    r = coordinator(cluster)
    assert r.returncode != 0 and "99" in r.stderr and "ledger.sqlite" in r.stderr, r.stderr
    up_refuses(cluster, "layout 99", "ledger.sqlite", "use the gantry that wrote it")
    with closing(sqlite3.connect(cluster.run / "ledger.sqlite")) as db:
        assert db.execute("pragma user_version").fetchone() == (99,)


def test_read_only_directory(make_cluster):
    """No half-started cluster: one line that names the directory."""
    cluster = make_cluster()
    cluster.run.mkdir()
    with mounted(cluster.run, "ro,size=1m"):
        r = coordinator(cluster)
        assert r.returncode != 0 and str(cluster.run) in r.stderr and "Read-only" in r.stderr, r.stderr
        up_refuses(cluster, str(cluster.run), "Read-only")


def needed(cluster, what):
    r = gantry("up", cluster.config)
    if "is in use" in r.stderr:
        pytest.skip(f"this host has all that {what}")
    return int(re.search(rf"needs about (\d+) MB of {what}", r.stderr)[1])


@pytest.mark.parametrize("what", ["memory", "disk"])
def test_what_is_drawn_is_counted(make_cluster, model, tmp_path, what):
    """Of a policy that answers five actions at once every fifth observation, unless all are wanted; to the task's limit, never less; of every
    camera. The page's port is in use, so that nothing starts in any case."""
    chunks = tmp_path / "chunks"
    assert gantry("model", "oft", model, chunks, "--kind", "tokens", "--chunk", "5", "--width", "32").returncode == 0
    episodes, image, limit = 10 ** 7, 64, 24                # of pick_up_object
    stages = [{"rollouts": {"episodes": episodes}}] + [{"sft": {"steps": 1, "from": "rollouts"}}] * (what == "memory")

    def frames(init=chunks, history=0, steps=limit, **suite):
        cluster = make_cluster({"policy": {"init": str(init)}, "prm": {"history": history}, "status": {"http": f"127.0.0.1:{port}"},
                                "suite": {"image": image} | suite}, stages=stages)
        picture, numbers = {"memory": (3 * image ** 2, 0), "disk": (2 * image ** 2, 512 * (steps + 1))}[what]
        return pytest.approx((needed(cluster, what) * 2 ** 20 / episodes - numbers) / picture, 0.01)
    with a_port() as port:
        assert 5 + 1 == frames()                            # o_0, o_5, ... o_20, and the last
        assert 200 + 1 == frames(steps=1000, max_steps=1000)
        assert 2 * (5 + 1) == frames(cameras=2)
        for everything in ({"init": model}, {"draw": "all"}, {"history": 2}):
            assert limit + 1 == frames(**everything), everything


@pytest.mark.parametrize("what", ["memory", "disk"])
def test_demonstrations_are_counted(make_cluster, what):
    """To their own limit, or the task's: the run's max_steps is the policy's."""
    episodes, image = 10 ** 7, 64

    def frames(suite={"name": "tabletop"}, **demos):
        cluster = make_cluster({"status": {"http": f"127.0.0.1:{port}"}, "suite": {"image": image, **suite}},
                               stages=[{"demos": {"episodes": episodes, **demos}}] + [{"sft": {"steps": 1}}] * (what == "memory"))
        each = {"memory": 3 * image ** 2, "disk": 2 * image ** 2 + 512}[what]
        return pytest.approx(needed(cluster, what) * 2 ** 20 / episodes / each, 0.01)
    with a_port() as port:
        assert 24 + 1 == frames()
        assert 24 + 1 == frames(suite={"max_steps": 1000})
        assert 300 + 1 == frames(max_steps=300)
        assert (24 + 112) / 2 + 1 == frames(suite={"tasks": ["pick_up_object", "sort_objects"]})


def test_disk_without_room(make_cluster):
    """Full before it begins: how much it needs, how much there is, what to do. One that fills up later: test_disk_full.py."""
    cluster = make_cluster()
    cluster.run.mkdir()
    with mounted(cluster.run, "size=2m"):
        up_refuses(cluster, "MB of disk", str(cluster.run), "put run.dir elsewhere")
        whole = needed(cluster, "disk")
        cluster.settings["policy"] |= {"train": "lora", "lora_r": 4}
        cluster.write_config()
        assert needed(cluster, "disk") < whole             # its versions are adapters, the base is there once
        r = coordinator(cluster)
        assert r.returncode != 0 and "No space left on device" in r.stderr and str(cluster.run) in r.stderr, r.stderr
        r = gantry("up", "--force", cluster.config)
        assert r.returncode != 0 and "make room there, or put run.dir elsewhere" in r.stdout and "started again" not in r.stdout, r.stdout


def test_file_system_that_will_not_do(make_cluster):
    """A FUSE file system of which nobody knows whether it locks and syncs. NFS and the like: tests/unit/test_ledger.c."""
    cluster = make_cluster()
    cluster.run.mkdir()
    try:
        mount = fuse_nowhere.mounted(cluster.run)
        mount.__enter__()
    except OSError as e:
        pytest.skip(f"FUSE cannot be mounted: {e}")
    try:
        r = coordinator(cluster)
        assert r.returncode == 78 and f"{cluster.run} lies on fuse.nowhere" in r.stderr and "NFS" in r.stderr, r.stderr
        up_refuses(cluster, f"{cluster.run} lies on fuse.nowhere", "choose a run.dir")
    finally:
        mount.__exit__(None, None, None)


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
