"""gantry eval on a finished run: look-ahead with controls and laws, blows, films, another run beside it, and what is refused."""
import json
import os
import re
import sqlite3
import subprocess
from contextlib import closing

import pytest
from conftest import BIN, TOP, gantry


def came_to(shown):
    """Whether the blow came, as `gantry replay` shows it: named, and in its place among the steps."""
    steps = shown.splitlines()
    head = steps.pop(0)
    at = re.search(r" steps, offset before step (\d+)$", head)
    assert steps.count("      offset") == bool(at), shown
    if at:
        assert steps[steps.index("      offset") + 1].split()[0] == at[1], shown
    else:
        assert head.endswith(" steps, offset: it ended before that"), shown
    return bool(at)


def test_eval(make_cluster, model, tmp_path):
    cluster = make_cluster({"run": {"name": "base"}, "policy": {"init": os.path.relpath(model, TOP)}})
    cluster.start()
    cluster.until_finished()
    assert f"init: {model}" in (cluster.run / "config.yaml").read_text().replace(f"{TOP}/{os.path.relpath(model, TOP)}", str(model))

    # one that is not finished is not trained to its end on the way
    config = cluster.run / "config.yaml"
    whole = config.read_text()
    config.write_text(whole + "  - eval:\n      episodes: 2\n      policies: [last]\n      at: [0.5]\n")
    done = gantry("eval", cluster.run, "--policies", "last", "--seeds", "100..103", "--at", "1")
    assert done.returncode == 1 and f"the run is not finished; `gantry up {cluster.run}` goes on with it" in done.stderr, done.stderr
    config.write_text(whole)
    # of most versions only the manifest stays: which can be had is said
    done = gantry("model", "export", f"{cluster.run}:2", tmp_path / "none")
    assert done.returncode == 1 and "the weights of version 2 have been removed; there are those of 0, 1, " in done.stderr, done.stderr
    # versions by the names that evaluations have for them
    with closing(sqlite3.connect(cluster.run / "ledger.sqlite")) as db:
        sft, last = db.execute("select policy_out from stages where kind = 'sft' union all select max(number) from versions where kind = 0").fetchall()
    for name, version in (("sft", sft[0]), ("last", last[0])):
        done = gantry("model", "export", f"{cluster.run}:{name}", tmp_path / name)
        assert done.returncode == 0 and done.stdout == f"{tmp_path / name}: version {version} of {cluster.run}\n", done.stdout + done.stderr
    for name, says in (("best", "no version of it was tried on val states (rl.eval_every), so there is no best"),
                       ("first", "no version is called first; there are sft, best, last and numbers")):
        done = gantry("model", "export", f"{cluster.run}:{name}", tmp_path / "none")
        assert done.returncode == 1 and says in done.stderr and not (tmp_path / "none").exists(), done.stderr
    out, plot, films = tmp_path / "eval.json", tmp_path / "scaling.png", tmp_path / "films"

    def evaluate(*words, status=0):
        done = gantry("eval", cluster.run, *words)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    done = evaluate("--policies", "sft,last", "--seeds", "100..103", "--n", "1,2,4", "--horizon", "3", "--execute", "2", "--controls",
                    "greedy,random,oracle", "--json", "--out", out, "--plot", plot, "--films", films)
    result = json.loads(done.stdout)
    assert result == json.loads(out.read_text())
    assert result["difference"]["pairs"] == 4 and len(result["difference"]["interval"]) == 2
    assert result["policies"]["last"]["tasks"]["pick_up_object"]["episodes"] == 4
    search = result["search"]["last"]
    for key in ("greedy", "n1", "n2", "n4", "n2_random", "n4_oracle_ceiling"):
        assert search[key]["episodes"] == 4, key
    assert search["n1"]["policy_steps_per_action"] == 1
    # candidates look no further than the limit, so a last search may be one step shorter than H
    assert 4 <= search["n4"]["policy_steps_per_action"] <= 4 * 3 / 2 + .5
    assert 0 < search["n4"]["mean_worth"] <= search["n4"]["chosen_worth"] < 1
    assert "chosen_worth" not in search["n4_random"]
    assert {"a", "b", "b_interval", "aic"} <= set(search["log_law"]) and "k_interval" in search["power_law"]
    assert plot.read_bytes()[:4] == b"\x89PNG"

    # of states that the run itself has played it is said; those above are fresh
    assert result["seen_by_run"] == []
    own = next(e["eval"] for e in cluster.settings["stages"] if "eval" in e)["episodes"]
    i = next(i for i, e in enumerate(cluster.settings["stages"]) if "eval" in e)
    done = evaluate("--policies", "last", "--seeds", f"{own - 1}..{own}", "--at", "1", "--json")
    assert f"note: {cluster.run}: --seeds {own - 1}..{own - 1} are test states that the run itself has looked at (0..{own - 1}, by its " \
           f"stages[{i}].eval); fresh ones begin at {own}\n" in done.stderr, done.stderr
    assert json.loads(done.stdout)["seen_by_run"] == [{"stage": i, "first_seed": own - 1, "last_seed": own - 1}]
    done = evaluate("--policies", "last", "--seeds", "0..0", "--val", "--at", "1")
    assert "--seeds 0..0 are val states that the run itself has looked at (0.." in done.stderr, done.stderr
    assert "note:" not in evaluate("--policies", "last", "--seeds", f"{own}..{own}", "--at", "1").stderr

    # asked again in the same words nothing is played; killed and asked again it goes on with the same stage
    stages = (cluster.run / "evals.yaml").read_bytes()
    again = evaluate("--policies", "sft,last", "--seeds", "100..103", "--n", "1,2,4", "--horizon", "3", "--execute", "2", "--controls",
                     "greedy,random,oracle", "--json")
    assert json.loads(again.stdout) == result and not again.stderr and (cluster.run / "evals.yaml").read_bytes() == stages
    words = ["--policies", "sft,last", "--seeds", "200..219", "--at", "1"]
    half = subprocess.Popen([BIN / "gantry", "eval", cluster.run, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cluster.until(lambda _: (cluster.run / "evals.yaml").read_bytes() != stages, "the stage is added")
    half.kill()
    half.wait()
    cluster.until(lambda s: s is None, "its coordinator to go with it")         # which holds the ledger until then
    stages = (cluster.run / "evals.yaml").read_bytes()
    gone_on = json.loads(evaluate(*words, "--json").stdout)
    assert gone_on["difference"]["pairs"] == 20 and (cluster.run / "evals.yaml").read_bytes() == stages
    # killed before its first episode, it is not played by another question
    with open(cluster.run / "evals.yaml", "a") as file:
        file.write("  - eval:\n      episodes: 2\n      policies: [last]\n      at: [0.5]\n      first_state: 700\n")

    failures = sum(round(p["episodes"] * (1 - p["success"])) for p in result["policies"].values())
    assert len(list(films.glob("*.png"))) == failures

    # the same states again, knocked about: other figures, and how often the blow came
    blown = json.loads(evaluate("--policies", "last", "--seeds", "100..103", "--perturb", "offset", "--at", "1", "--json").stdout)
    assert 1 <= blown["perturbed_episodes"]["last"] <= 4        # some end before it comes
    told = evaluate("--policies", "last", "--seeds", "100..103", "--perturb", "offset", "--at", "1").stdout
    assert f"offset: came to {blown['perturbed_episodes']['last']} of 4 episodes" in told, told
    with closing(sqlite3.connect(cluster.run / "ledger.sqlite")) as db:
        played = [row[0] for row in db.execute("select episode from episodes where stage = (select max(stage) from episodes)")]
    struck = [came_to(gantry("replay", cluster.run, str(episode), "-o", tmp_path / "blow.png").stdout) for episode in played]
    assert len(struck) == 4 and sum(struck) == blown["perturbed_episodes"]["last"]
    # the episodes that are kept are listed, with what one is looked for by
    rows = {int(row.split()[0]): row for row in gantry("replay", cluster.run).stdout.splitlines()[1:-1]}
    with closing(sqlite3.connect(cluster.run / "ledger.sqlite")) as db:
        assert {row[0] for row in db.execute("select episode from episodes where state in ('kept', 'evaluated')")} <= set(rows)
        task, state, success, steps = db.execute("select task, state_seed, success, steps from episodes where episode = ?", [played[0]]).fetchone()
    assert re.fullmatch(rf" *{played[0]}  later\d+ test last +{task} +{state} +\d+  {'success' if success else 'timeout'} +{steps}", rows[played[0]]), rows
    done = gantry("replay", cluster.run, "999999")
    assert done.returncode == 1 and f"`gantry replay {cluster.run}` lists those that are" in done.stderr, done.stderr
    chosen = json.loads(evaluate("--policies", "last", "--seeds", "100..101", "--temperatures", "0.6,1", "--method", "sample_n", "--judge",
                                 "confidence", "--n", "1,3", "--json").stdout)
    assert chosen["policies"]["last"]["temperature"] in (0.6, 1) and chosen["policies"]["last"]["greedy"]["episodes"] == 2
    assert chosen["search"]["last"]["n3"]["policy_steps_per_action"] == 3
    # on val states: what settings are chosen by, and the same episodes as those of no test state
    on_val = json.loads(evaluate("--policies", "last", "--seeds", "100..101", "--val", "--at", "1", "--n", "1,2", "--json").stdout)
    assert on_val["split"] == "val" and result["split"] == "test" and on_val["search"]["last"]["n2"]["episodes"] == 2
    refined = json.loads(evaluate("--policies", "last", "--seeds", "100..101", "--method", "refine", "--n", "1,4", "--json").stdout)
    assert refined["search"]["last"]["n4"]["policy_steps_per_action"] >= 1

    # paired with a copy of itself: no difference, whatever the run is called
    law = json.loads(evaluate("--action-error", "--policies", "last", "--n", "1..8", "--frames", "6", "--json").stdout)["last"]
    assert law["policy"]["error"]["k8"] < law["policy"]["error"]["k1"] and law["policy"]["b"] < 0

    for words, says in (
            (["--n", "0"], "from 1 to 128"), (["--n", "1,x"], "'1,x' is not right here"),
            (["--controls", "greedy"], "--controls is of look-ahead: --n says"), (["--frames", "3"], "--frames is of --action-error"),
            (["--action-error", "--films", "strips"], "--seeds is not of --action-error"),
            (["--n", "500"], "from 1 to 128"), (["--n", "4", "--horizon", "99"], "from 1 to 64"),
            (["--n", "4", "--judge", "best"], "there is none; there are: prm"),
            (["--n", "4", "--controls", "dice"], "there is no control 'dice'"),
            (["--n", "4", "--method", "sample_n"], "cannot tell actions apart"),
            (["--n", "4", "--method", "sample_n", "--judge", "value"], "look at where one led"),
            (["--n", "4", "--judge", "value"], "an actor cannot ask it"),
            (["--perturb", "earthquake"], "earthquake")):
        done = gantry("eval", cluster.run, "--policies", "last", "--seeds", "100..101", *words)
        assert done.returncode != 0 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    done = gantry("eval", cluster.run, "--policies", "last", "--seeds", "5..3")
    assert done.returncode == 2 and "--seeds: '5..3' is not right" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert "first_state: 700" not in (cluster.run / "evals.yaml").read_text()
    # one that cannot begin leaves nothing behind that would stand before the next
    before = (cluster.run / "evals.yaml").read_bytes()
    config = cluster.run / "config.yaml"
    text = config.read_text()
    init = next(line for line in text.splitlines() if line.strip().startswith("init:"))
    config.write_text(text.replace(init, init.split("init:")[0] + "init: nowhere/policy"))
    evaluate("--policies", "last", "--seeds", "100..101", "--at", "1", status=1)       # the coordinator: another configuration
    config.write_text(text)
    assert (cluster.run / "evals.yaml").read_bytes() == before
    assert evaluate("--policies", "last", "--seeds", "100..101", "--at", "1", "--json").returncode == 0
    # a list of evaluations that is damaged, or gone while the ledger has them, is refused and stays as it is
    listed = (cluster.run / "evals.yaml").read_bytes()
    for damaged in (b"\xff\xfe no list of stages", b""):
        (cluster.run / "evals.yaml").write_bytes(damaged)
        done = evaluate("--policies", "last", "--seeds", "300..301", "--at", "1", status=1)
        assert "evals.yaml" in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert (cluster.run / "evals.yaml").read_bytes() == damaged
    (cluster.run / "evals.yaml").write_bytes(listed)
    assert " 0 contradictions" in cluster.history()


def test_a_policy_without_a_critic_is_not_asked_for_its_value(make_cluster):
    """Said before anything is added to the run: an evaluation that stops stands before every one after it."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 4}}, {"sft": {"steps": 3, "batch": 8, "warmup": 1}}])
    cluster.start()
    cluster.until_finished()
    cluster.until(lambda s: s is None, "its daemons to end")
    for policy in "last", "sft":
        done = gantry("eval", cluster.run, "--policies", policy, "--seeds", "100..101", "--at", "1", "--n", "2", "--judge", "value")
        assert done.returncode == 1 and f"--judge value asks the policy's critic, and {policy} (version 1) has none" in done.stderr, done.stderr
    assert not (cluster.run / "evals.yaml").exists()
    done = gantry("eval", cluster.run, "--policies", "last", "--seeds", "100..101", "--at", "1", "--n", "2", "--judge", "confidence")
    assert done.returncode == 0 and "search_n by confidence" in done.stdout, done.stdout + done.stderr


def test_words_that_are_no_numbers():
    """Each is said in one line, before any run is looked at; none is taken for half of it."""
    for words, says in ((["--n", "1..1000"], "--n 1000: from 1 to 128 candidates"), (["--n", "100..200"], "--n 200: from 1 to 128"),
                        (["--policies", "sft,best,sft"], "--policies: sft is named twice"), (["--max-steps", "5x"], "'5x' is not right here"), (["--max-steps", "4294967297"], "expected: a whole number"),
                        (["--action-error", "--frames", "10abc"], "'10abc' is not right here")):
        done = gantry("eval", "nowhere", "--policies", "last", *words)
        assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


@pytest.fixture
def stopped(make_cluster):
    """A finished run, and an evaluation of it that was killed on the way: (cluster, its words)."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 4}}, {"sft": {"steps": 3, "batch": 8, "warmup": 1}}])
    cluster.start()
    cluster.until_finished()
    cluster.until(lambda s: s is None, "its daemons to end")
    words = ["eval", cluster.run, "--policies", "last", "--at", "1", "--seeds", "0..299"]
    half = subprocess.Popen([BIN / "gantry", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cluster.until(lambda s: s and s["episodes"]["planned"] == 300 and s["episodes"]["journaled"] > 0, "its episodes")
    half.kill()
    half.wait()
    cluster.until(lambda s: s is None, "its coordinator to go with it")
    return cluster, words


def test_one_that_was_begun_comes_first(stopped):
    """And that is said: it may take longer than what is asked for now."""
    cluster, _ = stopped
    other = ["eval", cluster.run, "--policies", "sft", "--at", "1", "--seeds", "500..501"]
    done = gantry(*other)
    assert done.returncode == 0, done.stderr
    assert re.search(f"^note: {cluster.run}: an evaluation that was begun before and stopped is played to its end first, at least \\d+ "
                     "episodes more; --drop-stopped gives it up", done.stderr, re.M), done.stderr
    done = gantry(*other, "--json")
    assert done.returncode == 0 and not done.stderr and json.loads(done.stdout)["policies"]["sft"]["episodes"] == 2, done.stderr


def test_one_that_was_begun_is_dropped(stopped):
    """Nothing more of it is played, nothing that was is counted; asked for again in the same words it begins anew."""
    cluster, words = stopped
    other = ["eval", cluster.run, "--policies", "sft", "--at", "1", "--seeds", "500..501"]
    done = gantry(*other, "--drop-stopped", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["policies"]["sft"]["episodes"] == 2, done.stderr
    assert "an evaluation that was begun before and stopped is dropped" in done.stderr, done.stderr
    assert " 300 failed, 0 open;" in cluster.history()
    with closing(sqlite3.connect(f"file:{cluster.run / 'ledger.sqlite'}?mode=ro", uri=True)) as ledger:
        assert ledger.execute("SELECT COUNT(*), COUNT(DISTINCT reason), MIN(reason) FROM episodes WHERE stage = 2").fetchone() == (
            300, 1, "its evaluation was dropped")
        assert not ledger.execute("SELECT COUNT(*) FROM scalars WHERE stage = 2").fetchone()[0]
    done = gantry(*other, "--json")                                         # found by its words, with nothing to be dropped
    assert done.returncode == 0 and not done.stderr and json.loads(done.stdout)["policies"]["sft"]["episodes"] == 2, done.stderr
    words = [w if w != "0..299" else "0..3" for w in words]
    assert gantry(*words).returncode == 0
    assert (cluster.run / "evals.yaml").read_text().count("dropped") == 1
    cluster.history()
