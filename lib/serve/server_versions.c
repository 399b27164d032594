/* server_versions.c - reading, announcing and freeing versions: the holder's effects, carried out. A loader thread does what takes long. */
#include <errno.h>
#include <inttypes.h>

#include "serve/server_internal.h"

enum { STATE_DEADLINE_MS = 5000 };

struct load_job {
    struct serve *serve;
    uint64_t version;
    uint8_t digest[SHA256_SIZE];
    char dir[PATH_MAX];
    void *model;
    int result;
    struct error error;
};

struct held_model *serve_find_model(struct serve *s, uint64_t version)
{
    for (int i = 0; i < HOLDER_MAX; i++)
        if (s->models[i].model && s->models[i].version == version)
            return &s->models[i];
    return NULL;
}

struct unload_job { const struct serve_kind *kind; void *model; };

static void unload_job(void *arg)
{
    struct unload_job *job = arg;

    job->kind->unload(job->model);
    free(job);
}

/* Freeing a large model takes a while: the loader does it. */
static void free_version(struct serve *s, uint64_t version)
{
    struct held_model *held = serve_find_model(s, version);
    struct unload_job *job = held && s->loader ? malloc(sizeof *job) : NULL;    /* no loader: we are leaving */

    if (!held)
        return;
    if (job)
        *job = (struct unload_job) {.kind = s->kind, .model = held->model};
    if (!job || worker_submit(s->loader, unload_job, job) < 0) {
        free(job);
        s->kind->unload(held->model);
    }
    held->model = NULL;
    log_info("version released", "version=%" PRIu64, version);
}

static void on_loaded(void *arg)
{
    struct load_job *job = arg;
    struct serve *s = job->serve;
    struct held_model *place = serve_find_model(s, job->version);

    for (int i = 0; i < HOLDER_MAX && !place && job->result == 0; i++)
        if (!s->models[i].model)
            place = &s->models[i];
    if (!s->loader) {                   /* we are leaving: nothing is announced or freed by version any more */
        if (job->result == 0)
            s->kind->unload(job->model);
        free(job);
        return;
    }
    if (job->result == 0) {
        if (place->model)
            s->kind->unload(place->model);
        *place = (struct held_model) {.version = job->version, .model = job->model};
        log_info("version ready", "version=%" PRIu64 " dir=%s", job->version, LOG_Q(job->dir));
    } else {
        log_warn("version refused", "version=%" PRIu64 " reason=%s", job->version, LOG_Q(error_text(&job->error, job->result)));
    }
    serve_apply(s, &(struct holder_event) {.kind = HOLDER_LOADED,
                                     .loaded = {job->version, job->result == 0, error_text(&job->error, job->result)}});
    free(job);
}

static void load_job(void *arg)
{
    struct load_job *job = arg;

    job->result = job->serve->kind->load(job->dir, job->digest, job->serve->fast, &job->model, &job->error);
    (void)loop_post(job->serve->loop, on_loaded, job);
}

static void start_load(struct serve *s, const struct holder_effect *effect)
{
    struct load_job *job = s->loader ? calloc(1, sizeof *job) : NULL;

    if (!s->loader)
        return;
    if (job) {
        *job = (struct load_job) {.serve = s, .version = effect->version};
        memcpy(job->digest, effect->digest, sizeof job->digest);
        snprintf(job->dir, sizeof job->dir, "%s/%s", s->run_dir, effect->dir);
        if (worker_submit(s->loader, load_job, job) == 0)
            return;
    }
    free(job);
    serve_apply(s, &(struct holder_event) {.kind = HOLDER_LOADED, .loaded = {effect->version, false, "no thread or memory to load it"}});
}

static void ignore_reply(int result, const struct message *reply, void *arg)
{
    (void)result, (void)reply, (void)arg;       /* a lost state is said again after the next Welcome or Versions */
}

static void say_state(struct serve *s, const struct holder_effect *effect)
{
    Gantry__VersionState body = GANTRY__VERSION_STATE__INIT;

    if (!s->member)
        return;                         /* we are leaving */
    body.member = member_id(s->member);
    body.kind = s->kind->version_kind;
    body.version = effect->version;
    body.ready = effect->ready;
    body.text = (char *)effect->text;
    (void)wire_call(member_client(s->member), &(struct wire_call) {.kind = GANTRY__KIND__KIND_VERSION_STATE, .version = effect->version,
                    .body = &body.base, .deadline_ms = STATE_DEADLINE_MS, .on_reply = ignore_reply}, NULL);
}

void serve_apply(struct serve *s, const struct holder_event *event)
{
    struct holder_effects effects;

    holder_step(&s->holder, event, loop_now_ms(s->loop), &effects);
    for (size_t i = 0; i < effects.n; i++) {
        const struct holder_effect *effect = &effects.items[i];

        switch (effect->kind) {
        case HOLDER_LOAD: start_load(s, effect); break;
        case HOLDER_FREE: free_version(s, effect->version); break;
        case HOLDER_SAY: say_state(s, effect); break;
        }
    }
}

void serve_versions(struct serve *s, const Gantry__Versions *said)
{
    struct holder_listed list[HOLDER_MAX];
    size_t n = 0;

    if (said->kind != s->kind->version_kind)
        return;
    for (size_t i = said->n_keep > HOLDER_MAX ? said->n_keep - HOLDER_MAX : 0; i < said->n_keep; i++) {
        const Gantry__Versions__One *one = said->keep[i];

        if (one->manifest_digest.len != SHA256_SIZE)
            continue;
        list[n] = (struct holder_listed) {.version = one->version, .dir = one->dir};
        memcpy(list[n++].digest, one->manifest_digest.data, SHA256_SIZE);
    }
    serve_apply(s, &(struct holder_event) {.kind = HOLDER_LIST, .list = {list, n}});
}
