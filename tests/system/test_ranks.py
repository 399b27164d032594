"""Learner ranks: two commit the bytes that one does, also when one of them is killed in the middle of a plan."""
import hashlib

STAGES = [{"demos": {"episodes": 8, "style": "slow"}}, {"sft": {"steps": 24, "batch": 16, "warmup": 1}},
          {"sft": {"steps": 3, "batch": 16, "warmup": 1}}]


def run(make_cluster, ranks, during=lambda cluster: None):
    """The weights of the last version."""
    cluster = make_cluster({"cluster": {"learners": [{"device": "cpu"}] * ranks}}, stages=STAGES)
    cluster.run.mkdir(exist_ok=True)
    cluster.spawn("coordinator")
    for rank in range(ranks):
        cluster.spawn("learner", None, "--rank", rank)
    cluster.spawn("env-worker")
    during(cluster)
    cluster.until_finished()
    cluster.history()
    return hashlib.sha256((cluster.run / "policies" / "v000002" / "model.safetensors").read_bytes()).hexdigest()


def test_two_ranks_are_one(make_cluster):
    assert run(make_cluster, 1) == run(make_cluster, 2)


def test_a_rank_killed_in_a_plan(make_cluster):
    def kill(cluster):
        rank_1 = cluster.of("learner")[1]
        cluster.until(lambda s: 'msg="training"' in rank_1.log.read_text(), "rank 1 to train")
        rank_1.kill()           # started again by the cluster's supervision

    assert run(make_cluster, 2, kill) == run(make_cluster, 1)
