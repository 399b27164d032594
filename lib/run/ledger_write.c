/* The changes of a transaction: each is one row written and one event appended. */
#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "run/ledger_sql.h"

#define U(x) ((uint64_t)(x))

int ledger_put_stage(struct ledger *ledger, const struct ledger_stage *s)
{
    int r = ledger_may_write(ledger);

    if (r == 0)
        r = sql_run(ledger, "INSERT OR REPLACE INTO stages VALUES(?,?,?,?,?,?,?,?,?)", "ittiiidii", U(s->stage), s->name, s->kind,
                    U(s->state), s->start_ms, s->end_ms, s->wall_s, s->policy_in, s->policy_out);
    if (r < 0)
        return r;
    return ledger_event(ledger, "stage", 0, "stage=%u name=%s state=%s", s->stage, s->name, progress_state_name(s->state));
}

int ledger_put_iteration(struct ledger *ledger, const struct ledger_iteration *i)
{
    int r = ledger_may_write(ledger);

    if (r == 0)
        r = sql_run(ledger, "INSERT OR REPLACE INTO iterations VALUES(?,?,?,?,?,?,?,?,?,?,?,?)", "iitiiiiiiiib", U(i->stage),
                    U(i->iteration), i->name, U(i->purpose), i->policy_version, i->prm_version, U(i->state), i->first_episode,
                    i->last_episode, i->start_ms, i->end_ms, i->plan_digest, (size_t)SHA256_SIZE);
    if (r < 0)
        return r;
    return ledger_event(ledger, "iteration", 0, "stage=%u iteration=%u state=%s policy=%" PRIu64 " prm=%" PRIu64 " name=%s",
                        i->stage, i->iteration, progress_state_name(i->state), i->policy_version, i->prm_version, i->name);
}

int ledger_add_episode(struct ledger *ledger, const struct ledger_episode *e)
{
    int r = ledger_may_write(ledger);

    if (r == 0 && e->episode == 0)
        r = -EINVAL;
    if (r == 0)
        r = sql_run(ledger, "INSERT INTO episodes VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,'open',0,0,0,0,0,0,0,0,NULL,'')",
                    "iiiiitiiidiiiti", e->episode, U(e->stage), U(e->iteration), U(e->purpose), U(e->split), e->task,
                    e->state_seed, e->policy_version, e->prm_version, (double)e->temperature, U(e->search_n), U(e->max_steps),
                    e->sample_key, e->tag, e->replaces);
    if (r == 0)
        r = ledger_event(ledger, "added", e->episode, "stage=%u iteration=%u replaces=%" PRIu64, e->stage, e->iteration,
                         e->replaces);
    return r;
}

/* How far the episode is that is to be changed. */
static int begin_change(struct ledger *ledger, uint64_t episode, enum episode_state *ret_state, uint8_t ret_digest[SHA256_SIZE])
{
    sqlite3_stmt *s;
    char name[16];
    int r = ledger_may_write(ledger);

    if (r == 0)
        r = sql_query(ledger, &s, "SELECT state, digest FROM episodes WHERE episode = ?", "i", episode);
    if (r < 0)
        return r;
    r = sql_next(ledger, s);
    if (r == 1) {
        sql_text(s, 0, name, sizeof name);
        sql_digest(s, 1, ret_digest);
    }
    sql_done(s);
    if (r < 1)
        return r < 0 ? r : -ENOENT;
    return episode_state_parse(name, ret_state);
}

int ledger_episode_journaled(struct ledger *ledger, const struct ledger_episode *e)
{
    uint8_t digest[SHA256_SIZE];
    char hex[SHA256_HEX];
    enum episode_state state;
    int r = begin_change(ledger, e->episode, &state, digest);

    if (r < 0)
        return r;
    if (state != EPISODE_OPEN)
        return memcmp(digest, e->digest, SHA256_SIZE) ? -EEXIST : 0;
    r = sql_run(ledger,
                "UPDATE episodes SET state='journaled', success=?, timeout=?, steps=?, member=?, reward=?, progress_end=?,"
                " digest=? WHERE episode=?",
                "iiiiddbi", U(e->success), U(e->timeout), U(e->steps), U(e->member), (double)e->reward, (double)e->progress_end,
                e->digest, (size_t)SHA256_SIZE, e->episode);
    if (r < 0)
        return r;
    sha256_hex(e->digest, hex);
    return ledger_event(ledger, "journaled", e->episode, "%s success=%d steps=%u", hex, e->success, e->steps);
}

int ledger_episode_ended(struct ledger *ledger, uint64_t episode, enum episode_state end, const char *reason)
{
    uint8_t digest[SHA256_SIZE];
    enum episode_state state;
    int r = begin_change(ledger, episode, &state, digest);

    if (r < 0)
        return r;
    if (!episode_state_is_end(end))
        return -EINVAL;
    if (episode_state_is_end(state))
        return state == end ? 0 : -EALREADY;
    if (state == EPISODE_OPEN && end != EPISODE_FAILED)
        return -EINVAL;             /* only what is durable can be trained, kept or counted */
    r = sql_run(ledger, "UPDATE episodes SET state=?, reason=? WHERE episode=?", "tti", episode_state_name(end),
                reason ? reason : "", episode);
    return r < 0 ? r : ledger_event(ledger, "ended", episode, "%s %s", episode_state_name(end), reason ? reason : "");
}

int ledger_episode_failure(struct ledger *ledger, uint64_t episode, uint32_t failures, bool suspect, const char *why)
{
    int r = ledger_may_write(ledger);

    if (r == 0)
        r = sql_run(ledger, "UPDATE episodes SET failures=?, suspect=? WHERE episode=?", "iii", U(failures), U(suspect), episode);
    return r < 0 ? r : ledger_event(ledger, "failure", episode, "failures=%u suspect=%d %s", failures, suspect, why ? why : "");
}

int ledger_episode_reopened(struct ledger *ledger, uint64_t episode, const char *why)
{
    uint8_t digest[SHA256_SIZE];
    enum episode_state state;
    int r = begin_change(ledger, episode, &state, digest);

    if (r < 0)
        return r;
    if (state != EPISODE_JOURNALED)
        return state == EPISODE_OPEN ? 0 : -EALREADY;
    r = sql_run(ledger, "UPDATE episodes SET state='open', success=0, timeout=0, steps=0, member=0, reward=0, progress_end=0,"
                " digest=NULL WHERE episode=?", "i", episode);
    return r < 0 ? r : ledger_event(ledger, "reopened", episode, "%s", why ? why : "");
}

static int version_known(struct ledger *ledger, const struct ledger_version *v)
{
    uint8_t digest[SHA256_SIZE];
    sqlite3_stmt *s;
    int r = sql_query(ledger, &s, "SELECT digest FROM versions WHERE kind=? AND number=?", "ii", U(v->kind), v->number);

    if (r < 0)
        return r;
    r = sql_next(ledger, s);
    if (r == 1)
        sql_digest(s, 0, digest);
    sql_done(s);
    if (r == 1 && memcmp(digest, v->digest, SHA256_SIZE))
        return -EEXIST;
    return r;
}

int ledger_add_version(struct ledger *ledger, const struct ledger_version *v)
{
    char hex[SHA256_HEX];
    int r = ledger_may_write(ledger);

    if (r == 0)
        r = version_known(ledger, v);
    if (r != 0)
        return r < 0 ? r : 0;
    r = sql_run(ledger, "INSERT INTO versions VALUES(?,?,?,?,?,?,?,?,?,?,?)", "iiiiibtitti", U(v->kind), v->number, v->parent,
                U(v->stage), U(v->iteration), v->digest, (size_t)SHA256_SIZE, v->dir, U(v->gate_passed), v->gate_text, v->metrics,
                v->committed_ms);
    if (r < 0)
        return r;
    sha256_hex(v->digest, hex);
    return ledger_event(ledger, "version", 0, "kind=%s number=%" PRIu64 " parent=%" PRIu64 " manifest=%s",
                        v->kind == KIND_PRM ? "prm" : "policy", v->number, v->parent, hex);
}

int ledger_put_blob(struct ledger *ledger, const char *name, const void *bytes, size_t n)
{
    int r = ledger_may_write(ledger);

    return r < 0 ? r : sql_run(ledger, "INSERT OR REPLACE INTO blobs VALUES(?,?)", "tb", name, n ? bytes : "", n);
}

int ledger_put_group_epoch(struct ledger *ledger, uint64_t group_epoch)
{
    int r = ledger_may_write(ledger);

    if (r == 0)
        r = sql_run(ledger, "UPDATE run SET group_epoch=?", "i", group_epoch);
    if (r == 0)
        r = ledger_event(ledger, "group", 0, "epoch=%" PRIu64, group_epoch);
    if (r < 0)
        return r;
    ledger->run.group_epoch = group_epoch;
    return 0;
}

int ledger_add_scalar(struct ledger *ledger, uint32_t stage, uint32_t iteration, const char *name, double value)
{
    int r = ledger_may_write(ledger);

    if (r < 0)
        return r;
    return sql_run(ledger, "INSERT OR REPLACE INTO scalars VALUES(?,?,?,?,?)", "iitdi", U(stage), U(iteration), name,
                   value, clock_wall_ms());
}

int ledger_add_event(struct ledger *ledger, const char *kind, uint64_t episode, const char *text)
{
    int r = ledger_may_write(ledger);

    return r < 0 ? r : ledger_event(ledger, kind, episode, "%s", text ? text : "");
}
