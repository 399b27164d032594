"""kill -9 of every daemon in turn, of all at once, and of `gantry up`: the run completes and every episode ended once."""
import signal

import pytest

from conftest import ROLES

# Enough work that each kill hits the rl stage with episodes and updates under way.
ITERATIONS = 7


def stages(iterations=ITERATIONS):
    return [
        {"demos": {"episodes": 4, "style": "clean"}},
        {"sft": {"steps": 2, "batch": 8, "warmup": 1}},
        {"rl": {"iterations": iterations, "episodes": 6, "preset": "tabletop", "reward": "sparse", "critic_prm": False, "eval_every": 0,
                "critic_warmup": 1}},
    ]


def iteration_at_least(n):
    return lambda s: s and (s["stage"] == "rl" and s["iteration"] >= n or s["state"] == "finished")


def test_each_daemon_in_turn(make_cluster):
    cluster = make_cluster(stages=stages())
    cluster.start()
    for n, role in enumerate(ROLES):
        cluster.until(iteration_at_least(1 + n), f"rl iteration {1 + n}")
        cluster.of(role)[0].kill()
    summary = cluster.until_finished()
    assert [p.starts for p in cluster.processes] == [2] * len(ROLES)        # each was killed once, none fell over by itself
    assert summary["iterations"] == ITERATIONS
    cluster.history()


def test_all_at_once(make_cluster):
    cluster = make_cluster(stages=stages(4))
    cluster.start()
    cluster.until(iteration_at_least(1), "rl iteration 1")
    for p in cluster.processes:
        p.popen.send_signal(signal.SIGKILL)
    for p in cluster.processes:
        p.popen.wait()
    cluster.until_finished()
    cluster.history()


def test_up_itself(make_cluster):
    """The supervisor is killed: its children go with it; started again, the run goes on."""
    cluster = make_cluster(stages=stages(4))
    cluster.up()
    status = cluster.until(lambda s: iteration_at_least(1)(s) and len(s["members"]) == 4 and s, "rl iteration 1")
    cluster.supervisor.kill()
    cluster.supervisor.wait()
    cluster.until(lambda s: s is None, "the coordinator to go with its parent")
    cluster.up()
    summary = cluster.until_finished()
    assert summary["iterations"] == 4
    assert summary["run_id"] == status["run_id"]
    cluster.history()


def test_a_version_that_lost_its_record(make_cluster):
    """The coordinator has not heard of a version, and in the learner's next life its training.json is damaged: the run stops and says so."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 4, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}}])
    cluster.faults["learner-0"] = "committed.send=drop@1+"
    cluster.run.mkdir()
    for role in ("coordinator", "learner", "env-worker"):
        cluster.spawn(role)
    record = cluster.run / "policies" / "v000001" / "training.json"
    cluster.until(lambda _: not cluster.unfired(["committed.send"]), "the version, of which nobody is told")
    cluster.of("learner")[0].kill()         # first: a living one reads the record again, and may find it half written
    record.write_text("{}")
    coordinator = cluster.of("coordinator")[0]
    coordinator.wanted = False
    cluster.until(lambda _: not coordinator.running(), "the run to stop")
    assert coordinator.popen.returncode == 78
    assert f"{record}: trained: expected a list of episodes" in coordinator.log.read_text(), cluster.logs()


def with_a_fault(make_cluster, fault):
    cluster = make_cluster(stages=stages()[:2] + [{"rollouts": {"episodes": 6}}])
    cluster.faults["learner-0"] = fault
    return cluster.start()


def check_finishes(cluster, fault):
    cluster.until_finished()
    cluster.history()
    assert not cluster.unfired([fault.partition("=")[0]])


@pytest.mark.parametrize("fault", ["journal.fsync=abort@3", "wire.request=drop@9"])
def test_faults_in_the_learner(make_cluster, fault):
    """One that dies between write and acknowledgement, or is not heard once, costs time, never an episode."""
    check_finishes(with_a_fault(make_cluster, fault), fault)


def test_a_learner_that_never_answers(make_cluster):
    """It takes what is played, and nobody hears of it: workers hold on to it until the learner's next life answers."""
    fault = "wire.reply=drop@1+"
    cluster = with_a_fault(make_cluster, fault)
    cluster.until_stage("rollouts")
    cluster.of("learner")[0].kill()
    check_finishes(cluster, fault)


def test_a_learner_that_answers_no_more(make_cluster):
    """The same, once the demonstrations are in: each has been answered, but for those that came twice."""
    fault = "deliver_reply.send=drop@5+"
    cluster = with_a_fault(make_cluster, fault)
    cluster.until_stage("rollouts")
    cluster.until(lambda s: s and s["episodes"]["journaled"], "an episode that is taken and not answered")
    cluster.of("learner")[0].kill()
    check_finishes(cluster, fault)
