"""An actor whose loop turns while the thread that computes hangs, as a device can make it: it is ended and started again."""
import re

HANGS = "a batch is computed for longer than anybody waits for it"


def test_ended_and_started_again(make_cluster, monkeypatch):
    monkeypatch.setenv("GANTRY_FAULTS", "act.reply=delay:3600000@60")          # of each life of the actor
    cluster = make_cluster({"timing": {"hung_ms": 2000}}, stages=[{"rollouts": {"episodes": 4000}}])
    cluster.up()
    log, said = cluster.run / "log" / "actor-0.log", cluster.root / "up.log"
    cluster.until(lambda s: log.exists() and HANGS in log.read_text(), "the hang")
    journaled = cluster.until(lambda s: s, "a status")["episodes"]["journaled"]
    cluster.until(lambda s: s and s["episodes"]["journaled"] > journaled, "episodes by the next one")
    before, after = log.read_text().split(HANGS, 1)
    hung = re.findall(r'msg="up".* pid=(\d+)', before)[-1]      # busy machines may have starved one before
    assert f"actor-0 (pid {hung}) has stood still for 2 s: killed" in said.read_text() and 'msg="up"' in after, said.read_text()
