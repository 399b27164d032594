"""suite.tasks: [all] stands for the names of the suite's tasks."""
import sqlite3
from contextlib import closing

from conftest import gantry
from refusals import coordinator

TABLETOP = [line.split()[-1] for line in gantry("sim", "list").stdout.splitlines()[1:]]


def config(tmp_path, verb, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return gantry("config", verb, path)


def test_shown_and_checked(tmp_path):
    shown = config(tmp_path, "show", "suite: {tasks: [all]}\nstages: [demos: {episodes: 8}]\n").stdout
    assert len(TABLETOP) == 8 and f"  tasks: [{', '.join(TABLETOP)}]\n" in shown, shown
    for suite, n in (("libero_10", 10), ("libero_90", 90)):     # known by name, also where their files are not
        right = config(tmp_path, "check", f"suite: {{name: {suite}, tasks: [all]}}\nstages: [demos: {{episodes: 8}}]\n")
        assert right.returncode == 0 and f", {n} tasks" in right.stdout, right.stderr
    # what depends on how many there are is checked once they are named: 50 states of each
    for episodes, code in ((500, 0), (501, 1)):
        r = config(tmp_path, "check", f"suite: {{name: libero_10, tasks: [all]}}\nstages: [eval: {{episodes: {episodes}, policies: [last], at: [1]}}]\n")
        assert r.returncode == code, r.stderr
    assert "run.yaml, all tasks named:" in r.stderr and "501 episodes over 10 tasks from state 0 on would need 51" in r.stderr
    levels = "suite: {{tasks: [all]}}\nstages: [rl: {{reward: sparse, critic_prm: false, levels: [{}]}}]\n"
    assert config(tmp_path, "check", levels.format("1, 1, 1, 1, 2, 2, 2, 2")).returncode == 0
    assert "2 levels for 8 tasks" in config(tmp_path, "check", levels.format("1, 2")).stderr
    # of another's simulator it is a name like any other
    remote = config(tmp_path, "show", "suite: {name: remote, remote: nobody, tasks: [all]}\nstages: [demos: {episodes: 8}]\n")
    assert "  tasks: [all]\n" in remote.stdout, remote.stderr


def test_a_run(make_cluster):
    """Its own copy has the names; it goes on from the same file."""
    cluster = make_cluster({"suite": {"tasks": ["all"]}}, stages=[{"demos": {"episodes": 8, "style": "clean"}}])
    refused = coordinator(cluster)
    assert refused.returncode != 0 and "suite.tasks: [all] is for `gantry up`" in refused.stderr, refused.stderr
    for resumed in (False, True):
        done = gantry("up", cluster.config)
        assert done.returncode == 0 and (", resumed: " in done.stdout) == resumed, done.stdout + done.stderr
    assert f"  tasks: [{', '.join(TABLETOP)}]\n" in (cluster.run / "config.yaml").read_text()
    with closing(sqlite3.connect(cluster.run / "ledger.sqlite")) as db:
        assert {row[0] for row in db.execute("select task from episodes")} == set(TABLETOP)
