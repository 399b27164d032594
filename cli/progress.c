#include "cli/progress.h"

#include <inttypes.h>
#include <string.h>

#include "base/figure.h"
#include "cli/json_at.h"

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static int64_t integer(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

bool progress_update(struct progress *p, const json_t *status)
{
    struct progress now = {.seen = true, .stage = integer(status, "stage_number"), .iteration = integer(status, "iteration")};
    bool changed;

    now.trouble = text_at(status, "trouble")[0] != '\0';
    now.doubtful_prm = text_at(status, "prm_doubt")[0] ? integer(status, "prm_version") : 0;
    changed = !p->seen || now.stage != p->stage || now.iteration != p->iteration || now.trouble != p->trouble;

    *p = now;
    return changed;
}

void progress_doubt(const json_t *status, struct strbuf *out)
{
    strbuf_addf(out, "%s: scored by reward model version %" PRId64 ", which did not pass its gate: %s", text_at(status, "stage"),
                integer(status, "prm_version"), text_at(status, "prm_doubt"));
}

void progress_training(const json_t *status, double *ret_done, double *ret_total)
{
    const json_t *members = json_object_get(status, "members");

    *ret_done = *ret_total = 0;
    for (size_t i = 0; i < json_array_size(members); i++) {
        const json_t *gauges = json_object_get(json_array_get(members, i), "gauges");

        if (number(gauges, "train_total") > *ret_total) {
            *ret_done = number(gauges, "train_done");
            *ret_total = number(gauges, "train_total");
        }
    }
}

static void add_success(const json_t *status, bool iterates, struct strbuf *out)
{
    const json_t *curve = json_object_get(status, "success_curve"), *last = json_array_get(curve, json_array_size(curve) - 1);
    double journaled = number(json_object_get(status, "episodes"), "journaled");

    if (journaled > 0)
        strbuf_addf(out, "  success %.2f", number(status, "success"));
    if (iterates && json_array_size(curve) && !strcmp(text_at(status, "stage"), json_string_value(json_array_get(last, 0)) ?: ""))
        strbuf_addf(out, "  (last %.2f)", json_number_value(json_array_get(last, 2)));
    if (json_is_number(json_object_get(status, "return")))
        strbuf_addf(out, "  return %.2f", figure(number(status, "return"), 2));
}

static void add_time(double seconds, struct strbuf *out)
{
    int64_t s = (int64_t)(seconds + 0.5);

    if (s >= 3600)
        strbuf_addf(out, "%" PRId64 ":%02" PRId64 ":%02" PRId64, s / 3600, s / 60 % 60, s % 60);
    else
        strbuf_addf(out, "%" PRId64 ":%02" PRId64, s / 60, s % 60);
}

/* Of a large model's updates there is none in ten seconds: how long one takes says more then. */
static void add_rate(const json_t *status, const char *key, const char *what, struct strbuf *out)
{
    double rate = number(status, key);

    if (rate >= 0.1)
        strbuf_addf(out, "  %.*f %ss/s", rate < 10 ? 1 : 0, rate, what);
    else if (rate > 0)
        strbuf_addf(out, "  %.0f s an %s", 1 / rate, what);
}

void progress_line(const json_t *status, struct strbuf *out)
{
    const json_t *episodes = json_object_get(status, "episodes");
    const char *state = text_at(status, "state"), *title = text_at(status, "title");
    const json_t *left = json_object_get(status, "left_s");
    double done, total;

    if (!strcmp(state, "finished")) {
        strbuf_adds(out, "all stages are done");
        return;
    }
    strbuf_adds(out, title[0] ? title : text_at(status, "stage"));
    strbuf_addf(out, "  (stage %" PRId64 " of %" PRId64 ")  %s", integer(status, "stage_number") + 1, integer(status, "stages"),
                state);
    if (!strcmp(state, "waiting") || !strcmp(state, "paused"))
        strbuf_addf(out, " for %s", text_at(status, "waiting_for"));
    if (text_at(status, "late")[0])
        strbuf_addf(out, ", waits for %s", text_at(status, "late"));
    if (text_at(status, "trouble")[0])
        strbuf_addf(out, ", tried again after: %s", text_at(status, "trouble"));
    progress_training(status, &done, &total);
    if (total > 0 && (!strcmp(state, "training") || !strcmp(state, "draining")))
        strbuf_addf(out, " %.0f/%.0f updates", done, total);
    if (number(episodes, "planned") > 0)
        strbuf_addf(out, " %.0f/%.0f episodes", number(episodes, "journaled"), number(episodes, "planned"));
    if (number(episodes, "failed") > 0)
        strbuf_addf(out, "  failed %.0f", number(episodes, "failed"));
    add_success(status, integer(status, "iterations") > 0, out);
    add_rate(status, "env_steps_per_s", "env step", out);
    add_rate(status, "updates_per_s", "update", out);
    if (json_is_number(left)) {         /* the coordinator says none while nobody works, or before it knows */
        strbuf_adds(out, "  ");
        add_time(json_number_value(left), out);
        strbuf_addf(out, " left in this %s", text_at(status, "left_in"));
    }
}

static double gauge(const json_t *member, const char *name) { return number(json_object_get(member, "gauges"), name); }

static void add_member(const json_t *member, struct strbuf *out)
{
    const json_t *versions = json_object_get(member, "versions");
    size_t n = json_array_size(versions);

    strbuf_addf(out, "  %3" PRId64 "  %-11s %-9s %s:%" PRId64 "  %s", integer(member, "member"), text_at(member, "role"),
                text_at(member, "state"), text_at(member, "host"), integer(member, "pid"), text_at(member, "device"));
    if (text_at(member, "name")[0])
        strbuf_addf(out, "  %s", text_at(member, "name"));
    if (integer(member, "slots"))
        strbuf_addf(out, "  %" PRId64 "/%" PRId64 " slots  %" PRId64 " delivered", integer(member, "leases"),
                    integer(member, "slots"), integer(member, "delivered"));
    for (size_t i = 0; i < n; i++)
        strbuf_addf(out, "%s%" PRId64, i ? "," : "  versions ", (int64_t)json_integer_value(json_array_get(versions, i)));
    if (gauge(member, "rss_peak_bytes") > 0)
        strbuf_addf(out, "  %.0f MB", gauge(member, "rss_peak_bytes") / 1e6);
    if (gauge(member, "device_memory_used_bytes") > 0)
        strbuf_addf(out, "  device %.1f/%.0f GiB", gauge(member, "device_memory_used_bytes") / 0x1p30,
                    gauge(member, "device_memory_bytes") / 0x1p30);
    if (json_is_true(json_object_get(member, "slow")))
        strbuf_addf(out, "  SLOW: %.0f ms a step", number(member, "ms_per_step"));
    strbuf_addc(out, '\n');
}

/* Reward models that are to come: one that waits for its iteration, one on trial; and how the last trial ended. */
static void add_reward_models(const json_t *status, struct strbuf *out)
{
    const json_t *now = json_object_get(status, "prm_shadow"), *last = json_object_get(status, "prm_shadow_last");
    const json_t *next = json_object_get(status, "prm_next");

    if (next)
        strbuf_addf(out, "from iteration %" PRId64 " on: reward model version %" PRId64 "\n", integer(next, "at"),
                    integer(next, "version"));
    if (now)
        strbuf_addf(out, "on trial: reward model version %" PRId64 " beside %" PRId64 ", %" PRId64 "/%" PRId64 " episodes\n",
                    integer(now, "version"), integer(now, "against"), integer(now, "episodes"), integer(now, "wanted"));
    if (last)
        strbuf_addf(out, "last trial: reward model version %" PRId64 " %s: %s\n", integer(last, "version"),
                    text_at(last, "verdict"), text_at(last, "text"));
}

static void add_share(const json_t *task, const char *key, double times, const char *unit, struct strbuf *out)
{
    const json_t *value = json_object_get(task, key);

    if (json_is_number(value))
        strbuf_addf(out, "  %5.*f%s", times > 1 ? 0 : 2, times * json_number_value(value), unit);
    else
        strbuf_addf(out, "  %5s%*s", "-", (int)strlen(unit), "");
}

/* A run of several tasks: what the sum does not say. */
static void add_tasks(const json_t *status, struct strbuf *out)
{
    const json_t *tasks = json_object_get(status, "tasks");
    int widest = 0;

    for (size_t i = 0; i < json_array_size(tasks); i++)
        widest = MAX(widest, (int)strlen(text_at(json_array_get(tasks, i), "task")));
    if (json_array_size(tasks))
        strbuf_addf(out, "%-*s%7s%7s%9s\n", widest + 2, "tasks:", "rl", "val", "drawn");
    for (size_t i = 0; i < json_array_size(tasks); i++) {
        const json_t *task = json_array_get(tasks, i);

        strbuf_addf(out, "  %-*s", widest, text_at(task, "task"));
        add_share(task, "success", 1, "", out);
        add_share(task, "val", 1, "", out);
        add_share(task, "drawn", 100, " %", out);
        strbuf_addc(out, '\n');
    }
}

void progress_page(const json_t *status, struct strbuf *out)
{
    const json_t *members = json_object_get(status, "members"), *stages = json_object_get(status, "history");

    strbuf_addf(out, "run %s  %s  seed %" PRId64 "  build %s  up ", text_at(status, "run"), text_at(status, "dir"),
                integer(status, "seed"), text_at(status, "build"));
    add_time(number(status, "up_s"), out);
    strbuf_addc(out, '\n');
    progress_line(status, out);
    strbuf_addf(out, "\npolicy version %" PRId64, integer(status, "policy_version"));
    if (integer(status, "prm_version"))
        strbuf_addf(out, "  reward model version %" PRId64, integer(status, "prm_version"));
    strbuf_addc(out, '\n');
    if (text_at(status, "prm_doubt")[0]) {
        progress_doubt(status, out);
        strbuf_addc(out, '\n');
    }
    add_reward_models(status, out);
    strbuf_adds(out, "stages:\n");
    for (size_t i = 0; i < json_array_size(stages); i++) {
        const json_t *stage = json_array_get(stages, i);

        strbuf_addf(out, "  %-12s %-8s ", text_at(stage, "stage"), text_at(stage, "state"));
        add_time(number(stage, "wall_s"), out);
        strbuf_addc(out, '\n');
    }
    add_tasks(status, out);
    strbuf_adds(out, "members:\n");
    for (size_t i = 0; i < json_array_size(members); i++)
        add_member(json_array_get(members, i), out);
}
