/* server_versions.c - reading, announcing and freeing versions: the holder's effects, carried out. A loader thread does what
 * takes long. A version whose directory is not seen here is brought over from the learner first (fetch.h). */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>

#include "base/atomic_file.h"
#include "serve/server_internal.h"

enum { STATE_DEADLINE_MS = 5000, CONFIG_MAX = 4 << 20, MISSES_MAX = 3 };

struct load_job {
    struct serve *serve;
    uint64_t version;
    uint8_t digest[SHA256_SIZE];
    char dir[PATH_MAX];
    bool brought;                       /* dir is in the cache */
    bool elsewhere;                     /* dir is not this run's, whatever lies there */
    bool missing;                       /* no directory, or none with a manifest */
    bool damaged;                       /* what was brought is not what it was then: to be brought again */
    void *model;
    int result;
    struct error error;
};

static void load_from(struct serve *s, uint64_t version, const uint8_t digest[SHA256_SIZE], const char *dir, bool brought);

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
    (void)malloc_trim(0);       /* the next version's tensors rarely fit where these were, and resident memory went up with every
                                 * version */
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

/* Not seen in the run's directory: is it to be brought over? A shared file system may only be slow to show it. */
static bool bring(struct serve *s, const struct load_job *job)
{
    uint64_t keep[HOLDER_MAX];
    size_t n = 0;

    s->misses = job->version == s->missing ? s->misses + 1 : 1;
    s->missing = job->version;
    if (!s->fetch || (s->sees_run && s->misses < MISSES_MAX))
        return false;
    for (size_t i = 0; i < s->holder.n; i++)
        if (s->holder.items[i].wanted)
            keep[n++] = s->holder.items[i].version;
    return fetch_start(s->fetch, job->version, job->digest, keep, n) == 0;
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
    if (job->missing && bring(s, job)) {
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
                                           .loaded = {job->version, job->result == 0, error_text(&job->error, job->result),
                                                      .later = job->damaged}});
    free(job);
}

static void load_job(void *arg)
{
    struct load_job *job = arg;
    char manifest[PATH_MAX + 16];

    snprintf(manifest, sizeof manifest, "%s/manifest.json", job->dir);
    job->missing = job->elsewhere || (!job->brought && access(manifest, F_OK) < 0);
    job->result = job->elsewhere ? -ENOENT : job->serve->kind->load(job->dir, job->digest, &job->serve->terms, &job->model,
                                                                    &job->error);
    if (job->brought && (job->result == -EBADMSG || job->result == -ENOENT))
        job->damaged = fetch_damaged(job->serve->fetch, job->version, job->digest);
    (void)loop_post(job->serve->loop, on_loaded, job);
}

static void load_from(struct serve *s, uint64_t version, const uint8_t digest[SHA256_SIZE], const char *dir, bool brought)
{
    struct load_job *job = s->loader ? calloc(1, sizeof *job) : NULL;

    if (!s->loader)
        return;
    if (job) {
        *job = (struct load_job) {.serve = s, .version = version, .brought = brought, .elsewhere = !brought && !s->sees_run};
        memcpy(job->digest, digest, sizeof job->digest);
        snprintf(job->dir, sizeof job->dir, "%s", dir);
        if (worker_submit(s->loader, load_job, job) == 0)
            return;
    }
    free(job);
    serve_apply(s, &(struct holder_event) {.kind = HOLDER_LOADED, .loaded = {version, false, "no thread or memory to load it"}});
}

static void start_load(struct serve *s, const struct holder_effect *effect)
{
    char dir[PATH_MAX];

    if ((size_t)snprintf(dir, sizeof dir, "%s/%s", s->run_dir, effect->dir) >= sizeof dir)
        dir[0] = '\0';
    load_from(s, effect->version, effect->digest, dir, false);
}

/* ---- bringing versions over ------------------------------------------------------------------------------- */

static void on_brought(int result, uint64_t version, const char *dir, const char *text, void *arg)
{
    struct serve *s = arg;

    if (!s->loader)
        return;                         /* we are leaving */
    for (size_t i = 0; i < s->holder.n && result == 0; i++)
        if (s->holder.items[i].version == version) {
            load_from(s, version, s->holder.items[i].digest, dir, true);
            return;
        }
    if (result < 0 && result != -ECANCELED)
        log_warn(result == -EAGAIN ? "a version cannot be brought over yet" : "a version cannot be brought over",
                 "version=%" PRIu64 " reason=%s", version, LOG_Q(text));
    serve_apply(s, &(struct holder_event) {.kind = HOLDER_LOADED,
                                           .loaded = {version, false, text, .later = result == -EAGAIN || result == -ECANCELED}});
}

int serve_look_for_run(struct serve *s, const Gantry__Welcome *welcome, struct error *error)
{
    _cleanup_free_ char *text = NULL;
    char path[PATH_MAX + 16];
    size_t n;
    int r, read;

    snprintf(path, sizeof path, "%s/config.yaml", s->run_dir);
    read = file_read(path, CONFIG_MAX, &text, &n);
    s->sees_run = read == 0 && !strcmp(text, welcome->config);
    r = fetch_new(s->loop, s->wire, s->loader, s->kind->version_kind, on_brought, s, &s->fetch);
    if (r == 0)
        r = fetch_cache(s->fetch, s->cache_root, welcome->run, wire_role_name(s->kind->role), error);
    if (r == 0 && !s->sees_run)
        log_info("the run's directory is not seen here: versions are brought over from the learner", "run_dir=%s why=%s",
                 LOG_Q(s->run_dir), LOG_Q(read == 0 ? "it is another run's" : strerror(-read)));
    if (r == 0)
        return 0;
    s->fetch = fetch_free(s->fetch);
    if (s->sees_run)
        return 0;
    return error_prefix(error, r, "the run's directory is not seen at %s (--run-dir), and versions cannot be brought over",
                        s->run_dir);
}

void serve_learners(struct serve *s, Gantry__Endpoint *const *endpoints, size_t n)
{
    struct error error = {0};

    for (size_t i = 0; i < n && s->fetch; i++)
        if (endpoints[i]->role == GANTRY__ROLE__ROLE_LEARNER && endpoints[i]->rank == 0 && *endpoints[i]->address &&
            fetch_learner(s->fetch, endpoints[i]->address, endpoints[i]->public_key, &error) < 0)
            log_warn("the learner cannot be asked for versions", "address=%s reason=%s", LOG_Q(endpoints[i]->address),
                     LOG_Q(error.text));
}

void serve_versions_tick(struct serve *s)
{
    uint64_t version;
    char text[160];

    if (!s->fetch)
        return;
    if (fetch_busy(s->fetch, &version) && !holder_wants(&s->holder, version))
        fetch_cancel(s->fetch);
    fetch_tick(s->fetch);
    if (fetch_text(s->fetch, text, sizeof text))
        lifecycle_status(s->lifecycle, "%s", text);
}

/* ---- what is said ------------------------------------------------------------------------------------------ */

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
    (void)wire_call(member_client(s->member),
                    &(struct wire_call) {.kind = GANTRY__KIND__KIND_VERSION_STATE, .version = effect->version,
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
    s->shadow = said->shadow;
    serve_apply(s, &(struct holder_event) {.kind = HOLDER_LIST, .list = {list, n}});
}
