#include "learner/intake.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uthash.h>

#include "base/effect_memory.h"

enum { RESEND_MS = 1000 };

struct record {                     /* durable */
    struct intake_record it;
    uint64_t sequence;              /* of the first Journaled message that named it */
    bool told;                      /* the coordinator has acknowledged such a message */
    UT_hash_handle hh;
};

struct writing {                    /* handed to the journal, not durable yet */
    struct intake_record it;
    uint64_t token, from, request;
};

struct open_set {                   /* an iteration whose episodes are admitted */
    uint32_t stage, iteration;
    uint64_t *episodes;             /* ascending */
    size_t n;
    uint64_t policy_version;
    bool closed;                    /* planned, its segment sealed: what is not there now (rows that failed) does not count any more */
};

struct intake {
    struct record *records;
    struct writing *writing;
    size_t n_writing, capacity_writing;
    struct open_set open[INTAKE_OPEN_MAX];      /* oldest first */
    size_t n_open;
    uint64_t highest;               /* largest episode id heard of since the start */
    bool has_segment;
    uint32_t segment_stage, segment_iteration;  /* where the journal appends */
    struct intake_version *versions;
    size_t n_versions;
    bool training, committed_untold;
    struct intake_plan plan;        /* in progress (or the last); its episodes are owned */
    struct intake_version committed;            /* committed_untold: said until acknowledged */
    uint64_t epoch;                 /* coordinator's */
    uint64_t sequence;              /* of the last Journaled message */
    size_t n_untold;
    uint64_t said_ms;               /* Journaled or Committed last sent */
    enum intake_bug bug;

    /* of the step that runs */
    struct intake_effects *out;
    bool out_of_memory;
};

int intake_new(struct intake **ret)
{
    struct intake *intake = calloc(1, sizeof(*intake));

    if (!intake)
        return -ENOMEM;
    *ret = intake;
    return 0;
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
        free(intake->open[i].episodes);
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

static struct intake_effect *emit(struct intake *intake, enum intake_effect_kind kind)
{
    static struct intake_effect scratch;
    struct intake_effects *out = intake->out;

    if (out->n == out->capacity) {
        size_t capacity = out->capacity ? 2 * out->capacity : 16;
        struct intake_effect *items = realloc(out->items, capacity * sizeof(*items));

        if (!items) {
            intake->out_of_memory = true;
            return &scratch;
        }
        out->items = items;
        out->capacity = capacity;
    }
    out->items[out->n] = (struct intake_effect) { .kind = kind };
    return &out->items[out->n++];
}

static void *take(struct intake *intake, size_t bytes)
{
    void *taken = effect_memory_take(&intake->out->memory, bytes);

    intake->out_of_memory |= !taken;
    return taken;
}

/* ---- what is durable --------------------------------------------------------------------------- */

static struct record *find_record(const struct intake *intake, uint64_t episode)
{
    struct record *record;

    HASH_FIND(hh, intake->records, &episode, sizeof(episode), record);
    return record;
}

static int add_record(struct intake *intake, const struct intake_record *it, bool told)
{
    struct record *record = find_record(intake, it->episode.episode);

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

static int add_version(struct intake *intake, const struct intake_version *version)
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
    return 0;
}

int intake_restore(struct intake *intake, const struct intake_record *records, size_t n_records,
                   const struct intake_version *versions, size_t n_versions)
{
    int r = 0;

    for (size_t i = 0; i < n_records && r == 0; i++)
        r = add_record(intake, &records[i], true);      /* the inventory tells them all */
    for (size_t i = 0; i < n_versions && r == 0; i++)
        r = add_version(intake, &versions[i]);
    return r;
}

/* ---- open iterations ----------------------------------------------------------------------------- */

static int compare_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static const struct open_set *find_open(const struct intake *intake, uint64_t episode)
{
    for (size_t i = 0; i < intake->n_open; i++)
        if (intake->open[i].n && bsearch(&episode, intake->open[i].episodes, intake->open[i].n, sizeof(episode), compare_id))
            return &intake->open[i];
    return NULL;
}

static bool is_before(uint32_t stage, uint32_t iteration, const struct open_set *set)
{
    return stage < set->stage || (stage == set->stage && iteration < set->iteration);
}

/* Where (stage, iteration) is or goes; the oldest makes room and its segment is sealed. NULL: it is older than all that are open. */
static struct open_set *place_open(struct intake *intake, uint32_t stage, uint32_t iteration)
{
    size_t at = 0;

    while (at < intake->n_open && !is_before(stage, iteration, &intake->open[at])) {
        if (intake->open[at].stage == stage && intake->open[at].iteration == iteration)
            return &intake->open[at];
        at++;
    }
    if (intake->n_open == INTAKE_OPEN_MAX) {
        struct intake_effect *seal;

        if (at == 0)
            return NULL;
        seal = emit(intake, INTAKE_SEAL);
        seal->segment.stage = intake->open[0].stage;
        seal->segment.iteration = intake->open[0].iteration;
        free(intake->open[0].episodes);
        memmove(&intake->open[0], &intake->open[1], (intake->n_open - 1) * sizeof(intake->open[0]));
        intake->n_open--;
        at--;
    }
    memmove(&intake->open[at + 1], &intake->open[at], (intake->n_open - at) * sizeof(intake->open[0]));
    intake->open[at] = (struct open_set) { .stage = stage, .iteration = iteration };
    intake->n_open++;
    return &intake->open[at];
}

static void send_inventory(struct intake *intake, const struct open_set *about);

static void on_open(struct intake *intake, const struct intake_event *event)
{
    struct open_set *set;

    if (event->epoch < intake->epoch)
        return;
    set = place_open(intake, event->open.stage, event->open.iteration);
    if (!set)
        return;
    if (event->open.n_episodes >= set->n) {         /* a late, shorter list takes nothing back */
        uint64_t *episodes = realloc(set->episodes, MAX(event->open.n_episodes, (size_t)1) * sizeof(*episodes));

        if (!episodes) {
            intake->out_of_memory = true;
            return;
        }
        if (event->open.n_episodes)
            memcpy(episodes, event->open.episodes, event->open.n_episodes * sizeof(*episodes));
        set->episodes = episodes;
        set->n = event->open.n_episodes;
        qsort(episodes, set->n, sizeof(*episodes), compare_id);
        set->policy_version = event->open.policy_version;
        if (set->n)
            intake->highest = MAX(intake->highest, episodes[set->n - 1]);
    }
    send_inventory(intake, set);
}

/* ---- deliveries ---------------------------------------------------------------------------------- */

static void reply(struct intake *intake, uint64_t to, uint64_t request, uint64_t episode, enum deliver_verdict verdict,
                  const uint8_t *digest, const char *text)
{
    struct intake_effect *effect = emit(intake, INTAKE_REPLY);

    effect->to = to;
    effect->request = request;
    effect->reply.episode = episode;
    effect->reply.verdict = verdict;
    if (digest)
        memcpy(effect->reply.digest, digest, SHA256_SIZE);
    snprintf(effect->reply.text, sizeof(effect->reply.text), "%s", text);
}

static void busy(struct intake *intake, uint64_t to, uint64_t request)
{
    struct intake_effect *effect = emit(intake, INTAKE_BUSY);

    effect->to = to;
    effect->request = request;
}

static bool is_writing(const struct intake *intake, uint64_t episode)
{
    for (size_t i = 0; i < intake->n_writing; i++)
        if (intake->writing[i].it.episode.episode == episode)
            return true;
    return false;
}

static int add_writing(struct intake *intake, const struct writing *w)
{
    if (intake->n_writing == intake->capacity_writing) {
        size_t capacity = intake->capacity_writing ? 2 * intake->capacity_writing : 32;
        struct writing *writing = realloc(intake->writing, capacity * sizeof(*writing));

        if (!writing)
            return -ENOMEM;
        intake->writing = writing;
        intake->capacity_writing = capacity;
    }
    intake->writing[intake->n_writing++] = *w;
    return 0;
}

static void admit(struct intake *intake, const struct intake_event *event, const struct open_set *set)
{
    const struct writing w = {
        .it = { .stage = set->stage, .iteration = set->iteration, .episode = event->deliver.episode },
        .token = event->deliver.token, .from = event->from, .request = event->request,
    };
    struct intake_effect *effect;

    if (add_writing(intake, &w) < 0) {
        intake->out_of_memory = true;
        return;
    }
    if (!intake->has_segment || intake->segment_stage != set->stage || intake->segment_iteration != set->iteration) {
        effect = emit(intake, INTAKE_SEGMENT);
        effect->segment.stage = intake->segment_stage = set->stage;
        effect->segment.iteration = intake->segment_iteration = set->iteration;
        intake->has_segment = true;
    }
    effect = emit(intake, INTAKE_APPEND);
    effect->append.episode = w.it.episode.episode;
    effect->append.token = w.token;
    effect->append.stage = set->stage;
    effect->append.iteration = set->iteration;
    if (intake->bug == INTAKE_BUG_ACK_BEFORE_SYNC)
        reply(intake, w.from, w.request, w.it.episode.episode, DELIVER_ACCEPTED, w.it.episode.digest, "");
}

/* Deliver without a place among the open iterations: too early to say, or too late. */
static bool not_announced_yet(const struct intake *intake, uint64_t episode)
{
    return intake->n_open == 0 || episode > intake->highest;
}

static void on_deliver(struct intake *intake, const struct intake_event *event)
{
    const struct journaled_episode *episode = &event->deliver.episode;
    const struct record *record = find_record(intake, episode->episode);
    const struct open_set *set = find_open(intake, episode->episode);
    struct intake_effect *release;
    bool known = set != NULL;

    if (set && set->closed)
        set = NULL;
    if (record && intake->bug == INTAKE_BUG_ADMIT_TWICE)
        record = NULL;
    if (!event->deliver.valid)
        reply(intake, event->from, event->request, episode->episode, DELIVER_REFUSED, NULL, event->deliver.text ? event->deliver.text : "malformed");
    else if (record && !memcmp(record->it.episode.digest, episode->digest, SHA256_SIZE))
        reply(intake, event->from, event->request, episode->episode, DELIVER_DUPLICATE, episode->digest, "");
    else if (record)
        reply(intake, event->from, event->request, episode->episode, DELIVER_SUPERSEDED, record->it.episode.digest, "another delivery was first");
    else if (is_writing(intake, episode->episode) || (!known && not_announced_yet(intake, episode->episode)))
        busy(intake, event->from, event->request);
    else if (!set)
        reply(intake, event->from, event->request, episode->episode, DELIVER_SUPERSEDED, NULL, "its iteration is closed, or it never had such an episode");
    else if (set->policy_version != event->deliver.policy_version && intake->bug != INTAKE_BUG_ANY_VERSION)
        reply(intake, event->from, event->request, episode->episode, DELIVER_SUPERSEDED, NULL, "played by another policy version than it was leased with");
    else {
        admit(intake, event, set);
        return;
    }
    release = emit(intake, INTAKE_RELEASE);
    release->append.episode = episode->episode;
    release->append.token = event->deliver.token;
}

static void send_journaled(struct intake *intake, uint64_t now_ms)
{
    struct journaled_episode *episodes;
    struct intake_effect *effect;
    struct record *record, *next;
    size_t n = 0;

    if (!intake->n_untold || !(episodes = take(intake, intake->n_untold * sizeof(*episodes))))
        return;
    effect = emit(intake, INTAKE_SEND_JOURNALED);
    HASH_ITER(hh, intake->records, record, next)
        if (!record->told && n < intake->n_untold) {
            episodes[n++] = record->it.episode;
            effect->journaled.stage = record->it.stage;
            effect->journaled.iteration = record->it.iteration;
        }
    effect->journaled.episodes = episodes;
    effect->journaled.n = n;
    effect->journaled.sequence = ++intake->sequence;    /* names all that is untold: its reply covers what came before, too */
    intake->said_ms = now_ms;
}

static void on_appended(struct intake *intake, const struct intake_event *event, uint64_t now_ms)
{
    struct writing w;
    size_t i = 0;

    while (i < intake->n_writing && intake->writing[i].token != event->appended.token)
        i++;
    if (i == intake->n_writing)
        return;
    w = intake->writing[i];
    intake->writing[i] = intake->writing[--intake->n_writing];
    if (event->appended.result < 0) {
        busy(intake, w.from, w.request);    /* not durable, not acknowledged: it will be delivered again */
        return;
    }
    if (add_record(intake, &w.it, false) < 0)
        intake->out_of_memory = true;
    if (intake->bug != INTAKE_BUG_ACK_BEFORE_SYNC)
        reply(intake, w.from, w.request, w.it.episode.episode, DELIVER_ACCEPTED, w.it.episode.digest, "");
    send_journaled(intake, now_ms);
}

static void on_journaled_ack(struct intake *intake, uint64_t sequence)
{
    struct record *record, *next;

    HASH_ITER(hh, intake->records, record, next)
        if (!record->told && record->sequence <= sequence) {
            record->told = true;
            intake->n_untold--;
        }
}

/* ---- inventory, plan, commit ----------------------------------------------------------------------- */

static const struct intake_version *newest(const struct intake *intake, int kind)
{
    const struct intake_version *found = NULL;

    for (size_t i = 0; i < intake->n_versions; i++)
        if (intake->versions[i].kind == kind && (!found || intake->versions[i].number > found->number))
            found = &intake->versions[i];
    return found;
}

static bool in_open_iteration(const struct intake *intake, const struct intake_record *it)
{
    for (size_t i = 0; i < intake->n_open; i++)
        if (intake->open[i].stage == it->stage && intake->open[i].iteration == it->iteration)
            return true;
    return false;
}

static void send_inventory(struct intake *intake, const struct open_set *about)
{
    size_t n = 0, total = HASH_COUNT(intake->records);
    struct journaled_episode *episodes = take(intake, MAX(total, (size_t)1) * sizeof(*episodes));
    const struct intake_version *policy = newest(intake, 0), *prm = newest(intake, 1);
    struct intake_effect *effect;
    struct record *record, *next;

    if (!about && intake->n_open)
        about = &intake->open[intake->n_open - 1];
    HASH_ITER(hh, intake->records, record, next)
        if (episodes && in_open_iteration(intake, &record->it))
            episodes[n++] = record->it.episode;
    effect = emit(intake, INTAKE_SEND_INVENTORY);
    effect->inventory.stage = about ? about->stage : UINT32_MAX;
    effect->inventory.iteration = about ? about->iteration : UINT32_MAX;
    effect->inventory.rows = about ? (uint32_t)about->n : 0;
    effect->inventory.episodes = episodes;
    effect->inventory.n = n;
    if (policy) {
        effect->inventory.policy_version = policy->number;
        memcpy(effect->inventory.policy_digest, policy->digest, SHA256_SIZE);
    }
    if (prm) {
        effect->inventory.prm_version = prm->number;
        memcpy(effect->inventory.prm_digest, prm->digest, SHA256_SIZE);
    }
    if (intake->training)
        memcpy(effect->inventory.plan_digest, intake->plan.digest, SHA256_SIZE);
}

static const struct intake_version *committed_by(const struct intake *intake, const uint8_t digest[SHA256_SIZE])
{
    for (size_t i = 0; i < intake->n_versions; i++)
        if (!memcmp(intake->versions[i].plan_digest, digest, SHA256_SIZE))
            return &intake->versions[i];
    return NULL;
}

static void send_committed(struct intake *intake, const struct intake_version *version, uint64_t now_ms)
{
    intake->committed = *version;
    intake->committed_untold = true;
    intake->said_ms = now_ms;
    emit(intake, INTAKE_SEND_COMMITTED)->committed = *version;
}

static bool has_all(const struct intake *intake, const struct intake_plan *plan)
{
    for (size_t i = 0; i < plan->n_episodes; i++)
        if (!find_record(intake, plan->episodes[i]))
            return false;
    return true;
}

static void close_planned(struct intake *intake, const struct intake_plan *plan)
{
    for (size_t i = 0; i < intake->n_open; i++)
        if (intake->open[i].stage == plan->stage && intake->open[i].iteration == plan->iteration)
            intake->open[i].closed = true;
}

static void start_training(struct intake *intake, const struct intake_plan *plan)
{
    uint64_t *episodes = calloc(MAX(plan->n_episodes, (size_t)1), sizeof(*episodes));
    struct intake_effect *effect;

    if (!episodes) {
        intake->out_of_memory = true;
        return;
    }
    if (plan->n_episodes)
        memcpy(episodes, plan->episodes, plan->n_episodes * sizeof(*episodes));
    free((void *)intake->plan.episodes);
    intake->plan = *plan;
    intake->plan.episodes = episodes;
    intake->training = true;
    close_planned(intake, plan);
    if (plan->n_episodes) {
        effect = emit(intake, INTAKE_SEAL);
        effect->segment.stage = plan->stage;
        effect->segment.iteration = plan->iteration;
        if (intake->has_segment && intake->segment_stage == plan->stage && intake->segment_iteration == plan->iteration)
            intake->has_segment = false;
    }
    emit(intake, INTAKE_TRAIN)->plan = intake->plan;
}

static void on_plan(struct intake *intake, const struct intake_event *event, uint64_t now_ms)
{
    const struct intake_version *done = committed_by(intake, event->plan.digest);
    struct intake_plan plan = event->plan;

    if (event->epoch < intake->epoch || intake->training)
        return;
    if (done && plan.n_episodes && intake->bug == INTAKE_BUG_TRAIN_AGAIN) {
        plan.version = newest(intake, plan.kind)->number + 1;
        done = NULL;
    }
    if (done) {
        close_planned(intake, &plan);
        send_committed(intake, done, now_ms);
    } else if (!has_all(intake, &plan)) {
        send_inventory(intake, NULL);       /* the coordinator will see what is missing and lease it again */
    } else {
        start_training(intake, &plan);
    }
}

static void on_trained(struct intake *intake, const struct intake_event *event, uint64_t now_ms)
{
    if (!intake->training)
        return;
    intake->training = false;
    if (event->trained.result < 0)
        return;                             /* the plan comes again and is tried again */
    if (add_version(intake, &event->trained.version) < 0)
        intake->out_of_memory = true;
    send_committed(intake, &event->trained.version, now_ms);
}

static void on_welcome(struct intake *intake, const struct intake_event *event, uint64_t now_ms)
{
    if (event->epoch < intake->epoch)
        return;
    intake->epoch = event->epoch;
    if (intake->bug == INTAKE_BUG_NO_INVENTORY)
        return;
    send_inventory(intake, NULL);
    send_journaled(intake, now_ms);
    if (intake->committed_untold)
        emit(intake, INTAKE_SEND_COMMITTED)->committed = intake->committed;
}

static void on_tick(struct intake *intake, uint64_t now_ms)
{
    if (now_ms - intake->said_ms < RESEND_MS)
        return;
    send_journaled(intake, now_ms);
    if (intake->committed_untold) {
        intake->said_ms = now_ms;
        emit(intake, INTAKE_SEND_COMMITTED)->committed = intake->committed;
    }
}

int intake_step(struct intake *intake, const struct intake_event *event, uint64_t now_ms, struct intake_effects *out)
{
    out->n = 0;
    effect_memory_reset(out->memory);
    intake->out = out;
    switch (event->kind) {
    case INTAKE_WELCOME: on_welcome(intake, event, now_ms); break;
    case INTAKE_OPEN: on_open(intake, event); break;
    case INTAKE_PLAN: on_plan(intake, event, now_ms); break;
    case INTAKE_DELIVER: on_deliver(intake, event); break;
    case INTAKE_APPENDED: on_appended(intake, event, now_ms); break;
    case INTAKE_TRAINED: on_trained(intake, event, now_ms); break;
    case INTAKE_JOURNALED_ACK: on_journaled_ack(intake, event->journaled_ack.sequence); break;
    case INTAKE_COMMITTED_ACK:
        if (event->committed_ack.kind == intake->committed.kind && event->committed_ack.number == intake->committed.number)
            intake->committed_untold = false;
        break;
    case INTAKE_TICK: on_tick(intake, now_ms); break;
    }
    intake->out = NULL;
    return intake->out_of_memory ? -ENOMEM : 0;
}

void intake_status(const struct intake *intake, struct intake_status *ret)
{
    struct intake_status status = { .stage = UINT32_MAX, .iteration = UINT32_MAX, .writing = intake->n_writing, .training = intake->training };

    for (size_t i = 0; i < intake->n_open; i++) {
        status.stage = intake->open[i].stage;
        status.iteration = intake->open[i].iteration;
        status.open += intake->open[i].n;
        for (size_t k = 0; k < intake->open[i].n; k++)
            status.journaled += find_record(intake, intake->open[i].episodes[k]) != NULL;
    }
    *ret = status;
}
