"""Versions travel: actors and PRM servers on a host that does not see the run's directory bring them over from the learner, over TCP with
keys. The other host is a directory of its own here; tests/system/test_netns.py hides the run's directory for real."""
import json

import pytest
from conftest import TINY, TOP
from test_tcp import LISTEN, SHORT, Host

NANO_QWEN = TOP / "tests" / "golden" / "nano_qwen"
ADAPTERS = {"policy": {"train": "lora", "lora_r": 4, "lora_alpha": 8}}
ON_ADAPTERS = [{"demos": {"episodes": 4, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}},
               {"rl": {"iterations": 3, "episodes": 4, "preset": "tabletop", "reward": "sparse", "critic_prm": False, "eval_every": 0,
                       "critic_warmup": 0}}]


@pytest.fixture
def two_hosts(make_cluster):
    """Coordinator, learner and worker beside the run's directory; actor and PRM server where it is not."""
    def make(stages, changes=None, faults=None, always=None, servers=("actor",), foreign=None):
        cluster = make_cluster({"cluster": {"listen": LISTEN}, **(changes or {})}, stages=stages)
        cluster.faults.update(faults or {})
        cluster.always.update(always or {})
        b = Host(cluster)
        (b.dir / "run").mkdir()
        for name, text in (foreign or {}).items():
            (b.dir / "run" / name).parent.mkdir(parents=True, exist_ok=True)
            (b.dir / "run" / name).write_text(text)
        cluster.spawn("coordinator")
        cluster.until(lambda s: s, "the coordinator")
        b.spawn("learner", "learner", b.key("learner"), "--threads", 1, "--listen", LISTEN, run_dir=True)
        for role in servers:
            name = role.replace("-", "_")
            cluster.spawn_bare(role, role, "--join", b.address(), "--key", b.key(name), "--listen", LISTEN, "--run-dir", b.dir / "run",
                               "--cache", b.dir / "cache")
        b.spawn("env-worker", "worker", b.key("env_worker"), "--slots", 4)
        return cluster, b
    return make


def versions(b, role, folder):
    """What lies whole in that cache."""
    (cache,) = (b.dir / "cache").glob(f"*-{role}")
    return sorted(p.name for p in cache.glob(f"{folder}/v*"))


def test_a_whole_run_without_a_shared_directory(two_hosts):
    """Policies and reward models are brought over as they are made, the backbone below a reward model with it; old ones are thrown away;
    nothing is written beside the cache."""
    cluster, b = two_hosts([s for s in TINY["stages"] if "eval" not in s], changes={"prm": {"init": str(NANO_QWEN)}},
                           servers=("actor", "prm-server"))
    cluster.until_finished()
    assert " 0 failed" in cluster.history()
    logs = {p.name: p.log.read_text() for p in cluster.processes}
    for name in ("actor", "prm-server"):
        assert "the run's directory is not seen here" in logs[name] and "version brought over" in logs[name]
        assert "refused" not in logs[name], logs[name]
    made, kept = sorted(p.name for p in (cluster.run / "policies").glob("v*")), versions(b, "actor", "policies")
    assert kept and set(kept) < set(made) and kept[0] >= made[-4], (kept, made)
    assert versions(b, "prm_server", "prms") == ["v000000", "v000001"]
    assert not list((b.dir / "cache").glob("*/*/*/train_state.safetensors"))
    assert not list((b.dir / "run").iterdir())


def test_adapters_come_with_their_base(two_hosts):
    """rl plays with adapters; what they are on was the end of sft, and stays in the cache beside them. What another run has at the path of
    this one's directory is not looked at."""
    cluster, b = two_hosts(ON_ADAPTERS, changes=ADAPTERS, foreign={"config.yaml": "run: {name: other}\n", "policies/v000000/manifest.json": "{}"})
    cluster.until_finished()
    assert " 0 failed" in cluster.history()
    log = cluster.of("actor")[0].log.read_text()
    assert "refused" not in log and 'why="it is another run\'s"' in log, log
    (base,) = {json.loads(f.read_text())["base"][3:] for f in (b.dir / "cache").glob("*/policies/v*/base.json")}
    assert base in versions(b, "actor", "policies")
    assert cluster.of("actor")[0].log.read_text().count(f'"version brought over" version={int(base[1:])} ') == 1


def test_goes_on_after_a_crash(two_hosts):
    """Killed in the middle of a file: the next life asks for what is missing, and for nothing else."""
    cluster, _ = two_hosts(SHORT, faults={"actor": "pull.write=abort@6"})
    cluster.until_finished()
    actor = cluster.of("actor")[0]
    assert actor.starts == 2, cluster.logs()
    begun = [line for line in actor.log.read_text().splitlines() if "bringing a version over" in line]
    assert " here=0 " in begun[0] and any(" here=0 " not in line for line in begun[1:]), begun


@pytest.mark.parametrize("who, specification, told", [
    ("actor", "weights.send=drop@2,weights_reply.arrive=drop@4,pull.write=eio@3,pull.rename=eio@1",
     ["cannot be written here: Input/output error", "renaming to "]),
    ("actor", "pull.write=enospc@2", ["cannot be written here: No space left on device"]),
    ("learner", "weights.arrive=drop@1,weights_reply.send=drop@3,weights_reply.send=abort@6", [])])
def test_faults_on_the_way(two_hosts, who, specification, told):
    """Lost requests and answers, a disk that says no, a learner that dies while it sends: later, and whole."""
    cluster, _ = two_hosts(SHORT, faults={who: specification})
    cluster.until_finished()
    assert " 0 failed" in cluster.history()
    log = cluster.of("actor")[0].log.read_text()
    assert all(words in log for words in told), log
    assert cluster.of("learner")[0].starts == 1 + (who == "learner"), cluster.logs()
    assert not cluster.unfired(fault.partition("=")[0] for fault in specification.split(","))


def test_a_damaged_copy_is_brought_again(two_hosts):
    """The cache is checked when it is loaded: a bit that has turned costs another transfer, and is never served."""
    cluster, b = two_hosts(SHORT, faults={"worker": "sim.step=stop@1"})        # the run waits: the version is wanted in the next life, too
    actor, worker = cluster.of("actor")[0], cluster.of("env-worker")[0]
    cluster.until(lambda s: s and worker.stands_still() and "version ready" in actor.log.read_text(), "the first version")
    actor.kill()
    (cache,) = (b.dir / "cache").glob("*-actor")
    for weights in cache.glob("policies/v*/model.safetensors"):
        with open(weights, "r+b") as f:
            f.seek(weights.stat().st_size - 5)
            byte = f.read(1)
            f.seek(-1, 1)
            f.write(bytes([byte[0] ^ 4]))
    cluster.until(lambda _: "not those its manifest lists" in actor.log.read_text(), "the damage to be found")
    worker.go_on()
    cluster.until_finished()
    assert actor.starts == 2
    assert " 0 failed" in cluster.history()


