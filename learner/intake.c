#include "learner/intake_internal.h"

#include <errno.h>
#include <string.h>

#include "base/array.h"

int intake_new(struct intake **ret)
{
    struct intake *intake = calloc(1, sizeof(*intake));

    if (!intake)
        return -ENOMEM;
    *ret = intake;
    return 0;
}

static void release_set(struct open_set *set)
{
    free(set->episodes);
    free(set->failed);
}

struct intake *intake_free(struct intake *intake)
{
    struct record *record, *next;

    if (!intake)
        return NULL;
    HASH_ITER(hh, intake->records, record, next) {
        HASH_DEL(intake->records, record);
        free(record);
    }
    for (size_t i = 0; i < intake->n_open; i++)
        release_set(&intake->open[i]);
    free((void *)intake->plan.episodes);
    free(intake->writing);
    free(intake->versions);
    free(intake);
    return NULL;
}

void intake_set_bug(struct intake *intake, enum intake_bug bug)
{
    intake->bug = bug;
}

void intake_effects_release(struct intake_effects *effects)
{
    free(effects->items);
    effects->memory = effect_memory_free(effects->memory);
    *effects = (struct intake_effects) { 0 };
}

struct intake_effect *intake_emit(struct intake *intake, enum intake_effect_kind kind)
{
    static struct intake_effect scratch;
    struct intake_effects *out = intake->out;

    if (array_room(&out->items, out->n, &out->capacity, sizeof(*out->items)) < 0) {
        intake->out_of_memory = true;
        return &scratch;
    }
    out->items[out->n] = (struct intake_effect) { .kind = kind };
    return &out->items[out->n++];
}

void *intake_take(struct intake *intake, size_t bytes)
{
    void *taken = effect_memory_take(&intake->out->memory, bytes);

    intake->out_of_memory |= !taken;
    return taken;
}

/* ---- what is durable --------------------------------------------------------------------------- */

struct record *intake_find_record(const struct intake *intake, uint64_t episode)
{
    struct record *record;

    HASH_FIND(hh, intake->records, &episode, sizeof(episode), record);
    return record;
}

int intake_add_record(struct intake *intake, const struct intake_record *it, bool told)
{
    struct record *record = intake_find_record(intake, it->episode.episode);

    if (record)
        return 0;
    record = calloc(1, sizeof(*record));
    if (!record)
        return -ENOMEM;
    record->it = *it;
    record->told = told;
    record->sequence = intake->sequence + 1;
    intake->n_untold += !told;
    HASH_ADD(hh, intake->records, it.episode.episode, sizeof(uint64_t), record);
    return 0;
}

/* A plan that is answered from its manifest is of an open iteration, so its version is among the newest of its kind. */
static void forget_old_versions(struct intake *intake, int kind)
{
    size_t n = 0, oldest = 0;

    for (size_t i = 0; i < intake->n_versions; i++) {
        if (intake->versions[i].kind != kind)
            continue;
        if (!n++ || intake->versions[i].number < intake->versions[oldest].number)
            oldest = i;
    }
    if (n > INTAKE_VERSIONS_KEPT)
        intake->versions[oldest] = intake->versions[--intake->n_versions];
}

int intake_add_version(struct intake *intake, const struct intake_version *version)
{
    struct intake_version *versions;

    for (size_t i = 0; i < intake->n_versions; i++)
        if (intake->versions[i].kind == version->kind && intake->versions[i].number == version->number)
            return 0;
    versions = realloc(intake->versions, (intake->n_versions + 1) * sizeof(*versions));
    if (!versions)
        return -ENOMEM;
    intake->versions = versions;
    versions[intake->n_versions++] = *version;
    forget_old_versions(intake, version->kind);
    return 0;
}

static bool is_before(uint32_t stage, uint32_t iteration, const struct open_set *set)
{
    return stage < set->stage || (stage == set->stage && iteration < set->iteration);
}

/* What no message can ask about any more. The coordinator has at most INTAKE_OPEN_MAX iterations open and opens them in order:
 * with that many open here, those before the oldest are over there, too. A delivery of theirs is refused without their
 * records. */
static void forget_closed(struct intake *intake)
{
    const struct open_set *oldest = &intake->open[0];
    struct record *record, *next;

    HASH_ITER(hh, intake->records, record, next)
        if (record->told && is_before(record->it.stage, record->it.iteration, oldest)) {
            HASH_DEL(intake->records, record);
            free(record);
        }
}

int intake_restore(struct intake *intake, const struct intake_record *records, size_t n_records,
                   const struct intake_version *versions, size_t n_versions)
{
    int r = 0;

    for (size_t i = 0; i < n_records && r == 0; i++)
        r = intake_add_record(intake, &records[i], true);      /* the inventory tells them all */
    for (size_t i = 0; i < n_versions && r == 0; i++)
        r = intake_add_version(intake, &versions[i]);
    return r;
}

void intake_learn_outcome(struct intake *intake, const struct journaled_episode *episode)
{
    struct record *record = intake_find_record(intake, episode->episode);

    if (record && !record->it.episode.steps && !memcmp(record->it.episode.digest, episode->digest, SHA256_SIZE))
        record->it.episode = *episode;
}

/* ---- open iterations ----------------------------------------------------------------------------- */

static int compare_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

struct open_set *intake_find_open(const struct intake *intake, uint64_t episode)
{
    for (size_t i = 0; i < intake->n_open; i++)
        if (intake->open[i].n && bsearch(&episode, intake->open[i].episodes, intake->open[i].n, sizeof(episode), compare_id))
            return (struct open_set *)&intake->open[i];
    return NULL;
}

void intake_close(struct intake *intake, struct open_set *set)
{
    struct intake_effect *effect;

    if (set->closed)
        return;
    set->closed = true;
    effect = intake_emit(intake, INTAKE_SEAL);
    effect->segment.stage = set->stage;
    effect->segment.iteration = set->iteration;
}

void intake_close_complete(struct intake *intake, struct open_set *set)
{
    if (!set->n || set->trained_on)
        return;
    for (size_t i = 0; i < set->n; i++)
        if (!intake_find_record(intake, set->episodes[i]) &&
            !(set->n_failed && bsearch(&set->episodes[i], set->failed, set->n_failed, sizeof(uint64_t), compare_id)))
            return;
    intake_close(intake, set);
}

/* Where (stage, iteration) is or goes; the oldest makes room and its segment is sealed. NULL: it is older than all that are open.
 */
static struct open_set *place_open(struct intake *intake, uint32_t stage, uint32_t iteration)
{
    size_t at = 0;

    while (at < intake->n_open && !is_before(stage, iteration, &intake->open[at])) {
        if (intake->open[at].stage == stage && intake->open[at].iteration == iteration)
            return &intake->open[at];
        at++;
    }
    if (intake->n_open == INTAKE_OPEN_MAX) {
        if (at == 0)
            return NULL;
        intake_close(intake, &intake->open[0]);
        release_set(&intake->open[0]);
        memmove(&intake->open[0], &intake->open[1], (intake->n_open - 1) * sizeof(intake->open[0]));
        intake->n_open--;
        at--;
    }
    memmove(&intake->open[at + 1], &intake->open[at], (intake->n_open - at) * sizeof(intake->open[0]));
    intake->open[at] = (struct open_set) { .stage = stage, .iteration = iteration };
    if (++intake->n_open == INTAKE_OPEN_MAX)
        forget_closed(intake);
    return &intake->open[at];
}

/* A sorted copy of n ids in place of *list. */
static int keep_ids(uint64_t **list, size_t *ret_n, const uint64_t *ids, size_t n)
{
    uint64_t *copy = realloc(*list, MAX(n, (size_t)1) * sizeof(*copy));

    if (!copy)
        return -ENOMEM;
    if (n)
        memcpy(copy, ids, n * sizeof(*copy));
    qsort(copy, n, sizeof(*copy), compare_id);
    *list = copy;
    *ret_n = n;
    return 0;
}

static void on_open(struct intake *intake, const struct intake_event *event)
{
    struct open_set *set;

    if (event->epoch < intake->epoch)
        return;
    set = place_open(intake, event->open.stage, event->open.iteration);
    if (!set)
        return;
    if (event->open.n_episodes >= set->n) {         /* a late, shorter list takes nothing back */
        if (keep_ids(&set->episodes, &set->n, event->open.episodes, event->open.n_episodes) < 0 ||
            keep_ids(&set->failed, &set->n_failed, event->open.failed, event->open.n_failed) < 0) {
            intake->out_of_memory = true;
            return;
        }
        set->policy_version = event->open.policy_version;
        set->purpose = event->open.purpose;
        set->trained_on = event->open.trained_on;
        if (set->n)
            intake->highest = MAX(intake->highest, set->episodes[set->n - 1]);
        intake_close_complete(intake, set);
    }
    intake_send_inventory(intake, set);
}

/* ---- the step -------------------------------------------------------------------------------------- */

int intake_step(struct intake *intake, const struct intake_event *event, uint64_t now_ms, struct intake_effects *out)
{
    out->n = 0;
    effect_memory_reset(out->memory);
    intake->out = out;
    switch (event->kind) {
    case INTAKE_WELCOME: intake_on_welcome(intake, event, now_ms); break;
    case INTAKE_OPEN: on_open(intake, event); break;
    case INTAKE_PLAN: intake_on_plan(intake, event, now_ms); break;
    case INTAKE_DELIVER: intake_on_deliver(intake, event); break;
    case INTAKE_APPENDED: intake_on_appended(intake, event, now_ms); break;
    case INTAKE_TRAINED: intake_on_trained(intake, event, now_ms); break;
    case INTAKE_JOURNALED_ACK: intake_on_journaled_ack(intake, event->journaled_ack.sequence); break;
    case INTAKE_COMMITTED_ACK:
        if (event->committed_ack.kind == intake->committed.kind && event->committed_ack.number == intake->committed.number)
            intake->committed_untold = false;
        break;
    case INTAKE_TICK: intake_on_tick(intake, now_ms); break;
    }
    intake->out = NULL;
    return intake->out_of_memory ? -ENOMEM : 0;
}

uint32_t intake_stage_of(const struct intake *intake, uint64_t episode)
{
    const struct open_set *set = intake_find_open(intake, episode);

    return set ? set->stage : UINT32_MAX;
}

uint32_t intake_trained_stage_of(const struct intake *intake, uint64_t episode)
{
    const struct open_set *set = intake_find_open(intake, episode);

    return set && set->trained_on ? set->stage : UINT32_MAX;
}

void intake_status(const struct intake *intake, struct intake_status *ret)
{
    struct intake_status status = {
        .stage = UINT32_MAX, .iteration = UINT32_MAX, .writing = intake->n_writing, .training = intake->training,
        .records = HASH_COUNT(intake->records), .versions = intake->n_versions};

    for (size_t i = 0; i < intake->n_open; i++) {
        status.stage = intake->open[i].stage;
        status.iteration = intake->open[i].iteration;
        status.open += intake->open[i].n;
        for (size_t k = 0; k < intake->open[i].n; k++)
            status.journaled += intake_find_record(intake, intake->open[i].episodes[k]) != NULL;
    }
    *ret = status;
}
