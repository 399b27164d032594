"""Named faults in real daemons: messages lost before they leave, on arrival, and as replies; processes that die at each write, fsync and
rename; disks that say EIO. A run with all of its stages must come to its end, with every episode ended once. docs/storage.md and
docs/reliability.md list the names. The long form is tests/fault/chaos.py (make chaos)."""
import pytest

REQUESTS = ["hello", "heartbeat", "lease_request", "act", "score", "deliver", "journaled", "inventory", "committed", "version_state"]
REPLIES = ["welcome", "heartbeat_reply", "lease_grant", "act_reply", "score_reply", "deliver_reply", "journaled_reply", "inventory_reply",
           "committed_reply", "version_state_reply"]
PUSHES = ["open_iteration", "plan", "versions"]
NAMES = ["coordinator-0", "learner-0", "actor-0", "prm-server-0", "env-worker-0"]


def every_process(cluster, specification):
    for name in NAMES:
        cluster.faults[name] = specification


def finish(cluster):
    cluster.start().until_finished()
    text = cluster.history()
    assert " 0 failed" in text, text


@pytest.mark.parametrize("what, kinds, where", [
    ("requests before they leave", REQUESTS, "send"), ("requests on arrival", REQUESTS, "arrive"),
    ("replies", REPLIES, "send"), ("pushes", PUSHES, "send")])
def test_messages_get_lost(make_cluster, what, kinds, where):
    """The first and the third of each kind. What can be repeated is; what cannot is asked for anew."""
    cluster = make_cluster()
    every_process(cluster, ",".join(f"{kind}.{where}=drop@{n}" for kind in kinds for n in (1, 3)))
    finish(cluster)
    assert not cluster.unfired(f"{kind}.{where}" for kind in kinds)


def test_slow_answers(make_cluster):
    """A third of a second now and then, in the loops themselves."""
    cluster = make_cluster()
    every_process(cluster, ",".join(f"{kind}.send=delay:300@{n}" for kind in REPLIES for n in (2, 5)))
    finish(cluster)
    assert not cluster.unfired(f"{kind}.send" for kind in REPLIES)


DEATHS = {
    "learner-0": ["journal.write", "journal.fsync", "journal.seal", "journal.rename", "deliver_reply.send", "journaled.send", "version.fsync",
                  "version.manifest", "version.rename", "version.renamed", "committed.send"],
    "coordinator-0": ["ledger.begin", "ledger.write", "ledger.commit", "ledger.committed", "lease_grant.send", "plan.send", "open_iteration.send",
                      "atomic_file.fsync", "atomic_file.rename"],
}


@pytest.mark.parametrize("who", DEATHS)
def test_dies_at_every_point(make_cluster, who):
    """One life after the other: each ends at the next of the points, as by kill -9."""
    cluster = make_cluster()
    cluster.faults[who] = [f"{point}=abort@{2 if 'write' in point or 'begin' in point else 1}" for point in DEATHS[who]]
    finish(cluster)
    assert not cluster.unfired(DEATHS[who])


def test_disk_errors(make_cluster):
    """The learner lives on and has it delivered again; the coordinator ends at each and is started again. A version that cannot be written:
    tests/system/test_ranks.py."""
    cluster = make_cluster()
    cluster.faults["learner-0"] = "journal.write=eio@2,journal.write=short@9,journal.fsync=eio@4"
    cluster.faults["coordinator-0"] = ["ledger.write=eio@9", "ledger.commit=eio@4", "ledger.begin=eio@20"]
    finish(cluster)
    assert [p.starts for p in cluster.processes] == [4, 1, 1, 1, 1], cluster.logs()
    log = cluster.of("learner")[0].log.read_text()
    for says in ("an episode cannot be journaled", "the journal cannot be synced", "no space left for the journal"):
        assert says in log, log
