"""More and fewer members while the run is on: gantry scale, drain MEMBER, cordon."""
from conftest import gantry

LONG = [{"demos": {"episodes": 4000, "style": "clean"}}]         # longer than the test, which drains it


def alive(status, role="env_worker"):
    return [m for m in (status or {}).get("members", []) if m["role"] == role and m["state"] != "lost"]


def test_scale_drain_cordon(make_cluster):
    cluster = make_cluster({"cluster": {"slots": 2}}, stages=LONG)
    up = cluster.up()
    cluster.until(lambda s: s and s["episodes"]["journaled"] >= 1, "the first episode")

    r = gantry("scale", cluster.run, "env_worker", 3)
    assert r.returncode == 0, r.stderr
    workers = cluster.until(lambda s: len(alive(s)) == 3 and all(m["leases"] for m in alive(s)) and alive(s), "three workers at play")

    # One is cordoned: it finishes what it has, gets no more, and stays.
    quiet = workers[0]["member"]
    assert gantry("cordon", cluster.run, quiet).returncode == 0
    cluster.until(lambda s: s and any(m["member"] == quiet and m["state"] == "cordoned" and m["leases"] == 0 for m in s["members"]), "an idle one")
    assert gantry("cordon", "--undo", cluster.run, quiet).returncode == 0
    cluster.until(lambda s: s and any(m["member"] == quiet and m["leases"] for m in s["members"]), "the same, at play again")

    # One is drained, by its name: it leaves by itself, and nobody starts it again but an operator.
    name = next(m["name"] for m in cluster.status()["members"] if m["member"] == quiet)
    assert gantry("drain", cluster.run, name).returncode == 0
    cluster.until(lambda s: s and len(alive(s)) == 2 and not any(m["member"] == quiet for m in s["members"]), "two workers")
    assert "sent away by an operator" in (cluster.run / "log" / f"{name}.log").read_text()
    assert gantry("scale", cluster.run, "env_worker", 3).returncode == 0
    cluster.until(lambda s: s and len(alive(s)) == 3, "three workers again")

    # What cannot be spared stays, with the reason.
    members = {m["role"]: m["member"] for m in cluster.status()["members"]}
    for role, why in (("learner", "learner rank"), ("actor", "last one that answers")):
        r = gantry("drain", cluster.run, members[role])
        assert r.returncode == 1 and why in r.stderr, r.stderr
    assert gantry("drain", cluster.run, 999).returncode == 1 and gantry("drain", cluster.run, "nobody").returncode == 1
    r = gantry("scale", cluster.run, "actor", 0)
    assert r.returncode == 1 and "has to stay" in r.stderr

    assert gantry("scale", cluster.run, "actor", 2).returncode == 0
    cluster.until(lambda s: len(alive(s, "actor")) == 2, "two actors")
    assert gantry("scale", cluster.run, "actor", 1).returncode == 0
    cluster.until(lambda s: len(alive(s, "actor")) == 1, "one actor")
    assert gantry("scale", cluster.run, "env_worker", 1).returncode == 0
    cluster.until(lambda s: len(alive(s)) == 1, "one worker")

    # None at all: status says what is missing.
    assert gantry("scale", cluster.run, "env_worker", 0).returncode == 0
    cluster.until(lambda s: s and s["late"] == "an env worker", "the lack of a worker")
    assert "playing, waits for an env worker " in gantry("status", cluster.run).stdout
    assert gantry("scale", cluster.run, "env_worker", 1).returncode == 0
    cluster.until(lambda s: s and not s["late"] and alive(s), "a worker again")
    assert gantry("drain", cluster.run).returncode == 0
    assert up.wait(60) == 0, cluster.logs()
    assert " 0 failed" in cluster.history()


def test_a_slow_worker_is_told(make_cluster):
    """One of three takes 60 ms longer for every step, which is much also where all are slow: status and the coordinator's log name it, and
    nothing else happens to it."""
    cluster = make_cluster({"cluster": {"slots": 1, "env_workers": 3}}, stages=LONG)
    cluster.always["env-worker-1"] = "sim.step=delay:60@1+"
    cluster.start()
    slow = cluster.until(lambda s: [m for m in alive(s) if m.get("slow")], "a slow worker")
    assert [m["name"] for m in slow] == ["env-worker-1"] and slow[0]["state"] == "alive" and slow[0]["ms_per_step"] > 60
    log = cluster.of("coordinator")[0].log.read_text()
    assert log.count('msg="a worker is slow"') == 1 and 'name="env-worker-1"' in log, log
    assert "SLOW: " in gantry("status", cluster.run).stdout
