"""A whole run: demonstrations, imitation, rollouts, reward model, reinforcement learning, verdict."""
import json
import re
import sqlite3
import urllib.error
import urllib.request

import lies
import pytest
from conftest import gantry, listens_at

SUMMARY = """success_before success_after success_best success_demonstrator policies.sft.temperature policies.sft.greedy policies.sft.t1
policies.sft.tasks.pick_up_object.success policies.sft.interval95 difference difference_interval paired.interval95 paired_t1.difference
eval_episodes sft_plateau.checked sft_plateau.gain_interval95 sft_plateau.at_plateau iterations wall_s.rl wall_total_s
env_steps_per_s.rl actions_per_s train_samples_per_s peak_memory_mb.coordinator peak_memory_mb.env_worker peak_memory_mb.actor
peak_memory_mb.prm_server peak_memory_mb.learner seed eval_seeds build""".split()


def at(tree, path):
    for key in path.split("."):
        assert key in tree, f"summary.json lacks {path}: {json.dumps(tree)[:600]}"
        tree = tree[key]
    return tree


TOKEN = "the-page-asks-for-this"


def check_pages(cluster, port):
    """What people see while it runs: the status line, the page, its figures, the metrics, the probes. The page asks for its token."""
    def get(path, token=TOKEN):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {token}"} if token else {})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.read().decode()
    status = cluster.until(lambda s: s and s["stage"] == "rl" and s["episodes"]["journaled"] and s, "an rl episode")
    assert isinstance(status["return"], (int, float)) and 0 <= status["success"] <= 1
    def line(_):        # between two iterations there is nobody to succeed
        said = gantry("status", cluster.run).stdout.splitlines()
        return next((text for text in said[1:2] if "success " in text), None)
    line = cluster.until(line, "a status line with successes")
    assert "(stage 6 of 7)" in line and "return " in line, line
    assert "<svg" in get("/") and json.loads(get("/status.json"))["run"] == "tiny"
    metrics = get("/metrics")
    for name in ("gantry_iteration_success ", "gantry_iteration_return ", "gantry_env_steps_total ",
                 'gantry_members{role="actor"} 1'):      # the learner stands still, and is missed after three seconds
        assert name in metrics, name
    for name in ("gantry_steps_played_total", "gantry_actions_total", "gantry_scores_total", "gantry_act_wait_seconds_total",
                 "gantry_train_samples_total", "gantry_train_seconds_total", 'gantry_memory_peak_bytes{role="actor"}', "gantry_journal_bytes"):
        assert float(re.search(rf"^{name} (\S+)$", metrics, re.M)[1]) > 0, name
    assert re.fullmatch(r"ledger ready\nrun (ready|busy)\n", get("/livez", None)) and re.match(r"ledger ready \d+ commits", get("/livez"))
    assert json.loads(get(f"/status.json?token={TOKEN}", None))["run"] == "tiny"
    for path, token in (("/status.json", None), ("/", "the-page-asks-for-thiS"), ("/metrics", TOKEN[:-1])):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(path, token)
    assert TOKEN not in cluster.logs(1000) + (cluster.run / "config.yaml").read_text()


def test_tiny_run(make_cluster, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "token").chmod(0o600)
    cluster = make_cluster({"status": {"http": "127.0.0.1:0", "token_file": str(tmp_path / "token")}})
    stages = cluster.settings["stages"]
    stages.insert(2, {"sft": {"steps": 2, "batch": 8, "warmup": 0}})
    stages[-1]["eval"]["policies"] = ["demonstrator", "sft", "sft-earlier", "best", "last"]
    stages[-2]["rl"].update(eval_every=2, eval_episodes=2)
    cluster.write_config()
    cluster.faults["learner-0"] = "version.rename=stop@5"     # of the second iteration of rl; twice sft, prm, rl before. A plan may come again
    cluster.start()
    learner = cluster.of("learner")[0]
    cluster.until(lambda _: learner.stands_still(), "the second update of rl")
    port = listens_at(cluster.of("coordinator")[0].popen.pid)
    assert f" http=127.0.0.1:{port} " in cluster.of("coordinator")[0].log.read_text()      # 0 was asked for: who it is told to can look
    check_pages(cluster, port)
    learner.go_on()
    summary = cluster.until_finished()
    text = cluster.history()
    assert summary["run"] == "tiny"
    assert summary["builds"] == {summary["build"]: ["coordinator", "env worker", "actor", "PRM server", "learner"]}
    for path in SUMMARY:
        at(summary, path)
    assert summary["iterations"] == 3
    assert sorted(p.name for p in (cluster.run / "policies").iterdir())[-1] == "v000005"       # 0, sft twice, three of rl
    assert not list((cluster.run / "journal").glob("*.open")), "every segment is sealed at the end"
    assert gantry("report", cluster.run).returncode == 0
    report = (cluster.run / "report.html").read_text()
    assert "late in reinforcement learning" in report or "evaluation, a " in report
    check_plots(report)
    assert f"; build {summary['build']}." in report
    log = (cluster.root / "coordinator-0.log").read_text()
    assert log.count("scored by reward model version 1, which did not pass its gate: promoted by force") == 1       # TINY forces it
    assert "Version 1 did not pass its gate, and scored 12 episodes of reinforcement learning." in report
    events = b"".join(p.read_bytes() for p in (cluster.run / "tb").iterdir())
    assert b"rl/success" in events and b"rl/return" in events and b"rl/train/approx_kl" in events
    # what is trained on and val states are no one curve: 3 points of the former (a tag of 10 bytes, then a float)
    assert events.count(b"\n\nrl/success\x15") == 3 and b"rl val/success\x15" in events
    assert (cluster.run / "prms" / "v000001").is_dir()
    assert " 0 open" in text and " 0 failed" in text and " 0 contradictions" in text, text
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        ended = dict(db.execute("select state, count(*) from episodes group by state"))
        scored = db.execute("select count(*) from episodes where stage = 5 and purpose = 3 and prm_version != 1").fetchone()[0]
        returns = db.execute("select count(*) from episodes where stage = 5 and purpose = 3 and reward != 0").fetchone()[0]
    assert ended["trained"] + ended.get("filtered", 0) == 3 * 4 and ended["kept"] == 6 + 20, ended
    assert summary["episodes"]["trained"] == ended["trained"]
    assert returns == 3 * 4
    assert scored == 0      # every episode of rl was scored by the one reward model there is


def check_plots(page):
    """Legends above the frames, and names that people use."""
    plots = re.findall(r"<svg class='plot'.*?</svg>", page, re.S)
    assert len(plots) > 5
    for plot in plots:
        legend = [int(y) for y in re.findall(r"<line x1='\d+' x2='\d+' y1='(\d+)' y2='\d+' stroke='", plot)]
        frame = [float(y) for y in re.findall(r"y1='([\d.]+)' y2='[\d.]+' stroke='var\(--line\)'", plot)]
        drawn = [float(y) for points in re.findall(r"points='([^']*)'", plot) for y in re.findall(r",([\d.]+)", points)]
        assert frame and drawn and max(legend, default=0) < min(frame + drawn), plot
        assert "_" not in re.sub(r"<[^>]*>", "", re.sub(r"<title>.*?</title>", "", plot)), plot
    assert "from the start policy" in page and "Explained variance" in page


def test_goes_on_where_it_stopped(make_cluster, tmp_path):
    """TERM to everybody in the middle, then start again on the same directory: the run ends as if nothing had been. Its reward model
    sees two frames before the present one. In its directory each lie is found."""
    cluster = make_cluster({"prm": {"history": 2}})
    cluster.start()
    cluster.until_stage("rollouts")
    for p in cluster.processes:
        p.wanted = False
    for p in sorted(cluster.processes, key=lambda p: p.role == "coordinator"):      # it leaves last
        p.popen.terminate()
    for p in cluster.processes:
        undelivered = p.role == "env-worker" and p.popen.wait(60) == 1 and "episodes in hand" in p.log.read_text()     # its learner had left
        assert p.popen.wait(60) == 0 or undelivered, f"{p.name} left with {p.popen.returncode}\n{cluster.logs()}"
    cluster.processes.clear()
    cluster.start()
    cluster.until_finished()
    cluster.history()
    assert json.loads((cluster.run / "prms" / "v000001" / "reward_config.json").read_text()) == {"history": 2}
    lies.check_all_are_caught(cluster.run, tmp_path)
