"""A whole run: demonstrations, imitation, rollouts, reward model, reinforcement learning, verdict."""
import json



def test_tiny_run(cluster):
    cluster.start()
    summary = cluster.until_finished()
    text = cluster.history()
    assert summary["run"] == "tiny"
    for key in ("success_before", "success_after", "eval_episodes", "iterations", "seed", "build"):
        assert key in summary, f"summary.json lacks {key}: {json.dumps(summary)[:600]}"
    assert summary["iterations"] == 3
    assert sorted(p.name for p in (cluster.run / "policies").iterdir())[-1] == "v000004"       # 0, sft, three of rl
    assert "0 open" in text or "open 0" in text or "open=0" in text, text


def test_goes_on_where_it_stopped(make_cluster):
    """TERM to everybody in the middle, then start again on the same directory: the run ends as if nothing had been."""
    cluster = make_cluster()
    cluster.start()
    cluster.until_stage("rollouts")
    for p in cluster.processes:
        p.wanted = False
    for p in sorted(cluster.processes, key=lambda p: p.role == "coordinator"):      # it leaves last
        p.popen.terminate()
    for p in cluster.processes:
        assert p.popen.wait(60) == 0, f"{p.name} left with {p.popen.returncode}\n{cluster.logs()}"
    cluster.processes.clear()
    cluster.start()
    cluster.until_finished()
    cluster.history()
