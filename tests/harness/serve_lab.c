#include "tests/harness/serve_lab.h"

#include <errno.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "nn/base_files.h"
#include "proto/policy.pb-c.h"
#include "proto/train.pb-c.h"
#include "run/manifest.h"
#include "run/rundir.h"
#include "serve/policy_version.h"

enum { RUN = 0x77 };

const char serve_lab_config[] = "suite: {image: 32}\nstages:\n  - rollouts: {episodes: 1}\n";
struct serve_lab_gates serve_lab_gates;

/* ---- the model ---------------------------------------------------------------------------------------------------- */

static void wait_at(atomic_bool *gate, atomic_int *here)
{
    atomic_fetch_add(here, 1);
    while (atomic_load(gate))
        usleep(1000);
    atomic_fetch_sub(here, 1);
}

static int load(const char *dir, const uint8_t digest[32], const struct serve_terms *terms, void **ret_model, struct error *error)
{
    _cleanup_(base_files_unrefp) struct base_files *held = NULL;
    _cleanup_free_ char *text = NULL;
    char path[VERSION_PATH + 32];
    float *model;
    size_t n;
    int r;

    wait_at(&serve_lab_gates.hold_load, &serve_lab_gates.loading);
    assert_int_equal(terms->image, 32);
    r = version_check_manifest(dir, digest, &held, error);
    if (r < 0)
        return r;
    snprintf(path, sizeof path, "%s/model.txt", dir);
    r = file_read(path, 64, &text, &n);
    if (r < 0)
        return error_set(error, -r, "%s", path);
    if (!strcmp(text, "nan"))
        return error_set(error, EINVAL, "the probe gave numbers that are not finite");
    if (!strcmp(text, "other"))
        return error_set(error, EBADMSG, "no format that is known here");
    model = malloc(sizeof *model);
    *model = strtof(text, NULL);
    *ret_model = model;
    return 0;
}

static void unload(void *model)
{
    atomic_fetch_add(&serve_lab_gates.unloaded, 1);
    free(model);
}

static int check(const struct message *message, void *model _unused_, struct error *error)
{
    const Gantry__ScoreRequest *request = (const Gantry__ScoreRequest *)message->body;

    return request->images ? (int)request->images : error_set(error, EINVAL, "there are no images");
}

static void compute(void *state _unused_, unsigned lane _unused_, struct serve_job **jobs, unsigned n)
{
    wait_at(&serve_lab_gates.hold_compute, &serve_lab_gates.computing);
    for (unsigned i = 0; i < n; i++) {
        Gantry__ScoreReply *reply = malloc(sizeof *reply);

        gantry__score_reply__init(reply);
        reply->progress = malloc(sizeof *reply->progress);
        reply->progress[0] = *(float *)jobs[i]->model;
        reply->n_progress = 1;
        reply->prm_version = jobs[i]->version;
        jobs[i]->reply = &reply->base;
        jobs[i]->status = GANTRY__STATUS__STATUS_OK;
    }
}

static int compare(const struct message *message, const ProtobufCMessage *first, const ProtobufCMessage *second,
                   Gantry__ShadowScored *ret)
{
    if (!((const Gantry__ScoreRequest *)message->body)->whole)
        return -EINVAL;
    if (second)
        ret->difference = ((const Gantry__ScoreReply *)second)->progress[0] - ((const Gantry__ScoreReply *)first)->progress[0];
    return 0;
}

static void *state_new(unsigned lanes) { return malloc(lanes); }

static const struct serve_kind kind = {
    .role = GANTRY__ROLE__ROLE_PRM_SERVER, .version_kind = GANTRY__VERSION_KIND__VERSION_PRM,
    .request_kind = GANTRY__KIND__KIND_SCORE, .name = "prm-server", .max_rows = 8, .load = load, .unload = unload, .check = check,
    .compute = compute, .compare = compare, .state_new = state_new, .state_free = free,
};

/* ---- the coordinator ------------------------------------------------------------------------------------------------------ */

static void welcome(struct serve_lab *lab, struct request *request)
{
    const Gantry__Hello *hello = (const Gantry__Hello *)request->message->body;
    Gantry__Endpoint learner = GANTRY__ENDPOINT__INIT, *list[] = {&learner};
    Gantry__Welcome reply = GANTRY__WELCOME__INIT;

    lab->hellos++;
    lab->peer = request->peer;
    snprintf(lab->server_address, sizeof lab->server_address, "%s", hello->address);
    reply.member = SERVE_LAB_MEMBER;
    reply.epoch = 1;
    reply.run = RUN;
    reply.heartbeat_ms = 20;
    reply.config = (char *)lab->config;
    reply.run_dir = lab->run;
    learner.role = GANTRY__ROLE__ROLE_LEARNER;
    learner.address = lab->learner_address;
    reply.endpoints = list;
    reply.n_endpoints = 1;
    (void)wire_reply(request, &reply.base, NULL, 0);
}

static void beat(struct serve_lab *lab, struct request *request)
{
    const Gantry__Heartbeat *said = (const Gantry__Heartbeat *)request->message->body;
    Gantry__HeartbeatReply reply = GANTRY__HEARTBEAT_REPLY__INIT;

    lab->beats++;
    for (size_t i = 0; i < said->n_gauges; i++)
        if (!strcmp(said->gauges[i]->name, "refused_total"))
            lab->refused_total = said->gauges[i]->value;
    reply.known = true;
    reply.drain = lab->drain;
    reply.sent_away = lab->sent_away;
    (void)wire_reply(request, &reply.base, NULL, 0);
}

static void on_request(struct request *request, void *arg)
{
    struct serve_lab *lab = arg;
    Gantry__VersionStateReply state_reply = GANTRY__VERSION_STATE_REPLY__INIT;
    Gantry__ShadowScoredReply trial_reply = GANTRY__SHADOW_SCORED_REPLY__INIT;
    Gantry__ByeReply bye = GANTRY__BYE_REPLY__INIT;

    switch (request->message->envelope.kind) {
    case WIRE_KIND(HELLO): welcome(lab, request); break;
    case WIRE_KIND(HEARTBEAT): beat(lab, request); break;
    case WIRE_KIND(BYE):
        lab->byes++;
        (void)wire_reply(request, &bye.base, NULL, 0);
        break;
    case WIRE_KIND(VERSION_STATE): {
        const Gantry__VersionState *state = (const Gantry__VersionState *)request->message->body;
        struct said *said = &lab->said[lab->n_said++ % SERVE_LAB_SAID];

        assert_int_equal(state->member, SERVE_LAB_MEMBER);
        *said = (struct said) {.version = state->version, .ready = state->ready};
        snprintf(said->text, sizeof said->text, "%s", state->text);
        (void)wire_reply(request, &state_reply.base, NULL, 0);
        break;
    }
    case WIRE_KIND(SHADOW_SCORED):
        lab->trial = *(const Gantry__ShadowScored *)request->message->body;
        lab->trials++;
        (void)wire_reply(request, &trial_reply.base, NULL, 0);
        break;
    default: fail_msg("kind %u", request->message->envelope.kind);
    }
}

static void on_weights(struct request *request, void *arg)
{
    struct serve_lab *lab = arg;

    if (((const Gantry__WeightsRequest *)request->message->body)->version != lab->withheld) {
        weights_request(lab->weights, request);
        return;
    }
    lab->asked_in_vain++;
    (void)wire_refuse(request, GANTRY__STATUS__STATUS_BUSY, "not now");
}

static void on_guard(void *arg)
{
    if (clock_mono_ms() - ((struct serve_lab *)arg)->begun_ms > 60000)
        fail_msg("waited a minute in vain");
}

const struct said *serve_lab_said(const struct serve_lab *lab, uint64_t version)
{
    for (unsigned i = lab->n_said; i-- > 0 && i + SERVE_LAB_SAID >= lab->n_said;)
        if (lab->said[i % SERVE_LAB_SAID].version == version)
            return &lab->said[i % SERVE_LAB_SAID];
    return NULL;
}

void serve_lab_publish(struct serve_lab *lab, uint64_t number, const char *text)
{
    struct manifest manifest = {.run = RUN, .number = number, .kind = 1};
    struct error error = {0};
    char dir[VERSION_PATH], path[VERSION_PATH + 32];

    assert_int_equal(version_begin(lab->run, 1, number, dir, &error), 0);
    snprintf(path, sizeof path, "%s/model.txt", dir);
    assert_int_equal(atomic_file_write(path, text, strlen(text)), 0);
    if (version_commit(lab->run, dir, &manifest, &error) < 0)
        fail_msg("%s", error.text);
    memcpy(lab->digest[number], manifest.digest, SHA256_SIZE);
    manifest_release(&manifest);
}

void serve_lab_want(struct serve_lab *lab, uint64_t shadow, size_t n, const uint64_t *numbers)
{
    Gantry__Versions versions = GANTRY__VERSIONS__INIT;
    Gantry__Versions__One ones[8], *list[8];
    char dirs[8][32];

    for (size_t i = 0; i < n; i++) {
        gantry__versions__one__init(&ones[i]);
        snprintf(dirs[i], sizeof dirs[i], "prms/v%06u", (unsigned)numbers[i]);
        ones[i].version = numbers[i];
        ones[i].dir = dirs[i];
        ones[i].manifest_digest.data = lab->digest[numbers[i]];
        ones[i].manifest_digest.len = SHA256_SIZE;
        list[i] = &ones[i];
    }
    versions.kind = kind.version_kind;
    versions.keep = list;
    versions.n_keep = n;
    versions.shadow = shadow;
    assert_int_equal(wire_push(lab->desk, lab->peer, WIRE_KIND(VERSIONS), 0, &versions.base), 0);
}

static void on_drain(const char *reason _unused_, void *arg)
{
    serve_drain(((struct serve_lab *)arg)->serve);
}

void serve_lab_open(struct serve_lab *lab, const char *config, bool elsewhere)
{
    struct error error = {0};
    char address[ADDRESS_MAX], cache[SCRATCH_PATH + 8], listen[ADDRESS_MAX], path[SCRATCH_PATH + 32];
    struct args args = {.threads = 1, .device = "cpu", .cache = cache, .join = address};

    *lab = (struct serve_lab) {.config = config};
    serve_lab_gates.unloaded = serve_lab_gates.hold_load = serve_lab_gates.hold_compute = 0;
    scratch_new(lab->dir);
    snprintf(lab->run, sizeof lab->run, "%s/run", lab->dir);
    snprintf(cache, sizeof cache, "%s/cache", lab->dir);
    snprintf(address, sizeof address, "ipc://%s/coordinator.ipc", lab->dir);
    snprintf(listen, sizeof listen, "ipc://%s/server.ipc", lab->dir);
    snprintf(lab->learner_address, sizeof lab->learner_address, "ipc://%s/learner.ipc", lab->dir);
    assert_int_equal(mkdir_p(lab->run, 0700), 0);
    assert_int_equal(rundir_prepare(lab->run, &error), 0);
    snprintf(path, sizeof path, "%s/config.yaml", lab->run);
    assert_int_equal(atomic_file_write(path, serve_lab_config, strlen(serve_lab_config)), 0);
    assert_int_equal(loop_new(&lab->loop), 0);
    assert_int_equal(loop_timer_new(lab->loop, 20, 20, on_guard, lab, &lab->guard), 0);
    assert_int_equal(wire_new(loop_uv(lab->loop), GANTRY__ROLE__ROLE_COORDINATOR, &lab->coordinator), 0);
    assert_int_equal(wire_new(loop_uv(lab->loop), GANTRY__ROLE__ROLE_LEARNER, &lab->learner), 0);
    assert_int_equal(wire_new(loop_uv(lab->loop), GANTRY__ROLE__ROLE_ENV_WORKER, &lab->worker), 0);
    assert_int_equal(wire_new(loop_uv(lab->loop), kind.role, &lab->server), 0);
    wire_set_run(lab->coordinator, RUN, 1);
    wire_set_run(lab->worker, RUN, 1);
    assert_int_equal(weights_new(lab->loop, lab->run, &lab->weights), 0);
    if (wire_server_new(lab->coordinator, &(struct wire_server_options) {.address = address, .on_request = on_request,
                                                                          .arg = lab}, &lab->desk, &error) < 0 ||
        wire_server_new(lab->learner, &(struct wire_server_options) {.address = lab->learner_address, .on_request = on_weights,
                                                                      .arg = lab}, &lab->shelf, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(lifecycle_new(lab->loop, &(struct lifecycle_options) {.on_drain = on_drain, .arg = lab},
                                   &lab->lifecycle), 0);
    args.run_dir = elsewhere ? lab->dir : lab->run;
    args.listen = listen;
    if (serve_new(lab->loop, lab->server, lab->lifecycle, &kind, &args, "", &lab->serve, &error) < 0)
        fail_msg("%s", error.text);
    LAB_UNTIL(lab, lab->hellos && lab->beats);
    if (wire_client_new(lab->worker, &(struct wire_client_options) {.address = lab->server_address}, &lab->client, &error) < 0)
        fail_msg("%s", error.text);
}

void serve_lab_close(struct serve_lab *lab)
{
    lab->client = wire_client_free(lab->client);
    lab->serve = serve_free(lab->serve);
    lab->weights = weights_free(lab->weights);
    lab->shelf = wire_server_free(lab->shelf);
    lab->desk = wire_server_free(lab->desk);
    lab->lifecycle = lifecycle_free(lab->lifecycle);
    lab->server = wire_free(lab->server);
    lab->worker = wire_free(lab->worker);
    lab->learner = wire_free(lab->learner);
    lab->coordinator = wire_free(lab->coordinator);
    lab->guard = loop_timer_free(lab->guard);
    lab->loop = loop_free(lab->loop);
    assert_int_equal(remove_tree(lab->dir), 0);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static void on_reply(int result, const struct message *reply, void *arg)
{
    struct serve_lab *lab = arg;

    if (result == -ECANCELED)
        return;
    lab->replies++;
    lab->result = result;
    lab->progress = result == 0 ? ((const Gantry__ScoreReply *)reply->body)->progress[0] : -1;
    snprintf(lab->text, sizeof lab->text, "%s", reply ? reply->envelope.error : "");
    assert_true(result < 0 || ((const Gantry__ScoreReply *)reply->body)->prm_version == reply->envelope.version);
}

void serve_lab_call(struct serve_lab *lab, Gantry__Kind kind_asked, uint64_t version, uint32_t images, bool whole)
{
    Gantry__ScoreRequest score = GANTRY__SCORE_REQUEST__INIT;
    Gantry__ActRequest act = GANTRY__ACT_REQUEST__INIT;
    struct wire_call call = {.kind = kind_asked, .version = version,
                             .body = kind_asked == WIRE_KIND(ACT) ? &act.base : &score.base, .deadline_ms = 60000,
                             .flags = WIRE_ONCE, .on_reply = on_reply, .arg = lab};

    score.images = images;
    score.whole = whole;
    assert_int_equal(wire_call(lab->client, &call, NULL), 0);
}

int serve_lab_ask(struct serve_lab *lab, uint64_t version, uint32_t images, bool whole)
{
    unsigned before = lab->replies;

    serve_lab_call(lab, WIRE_KIND(SCORE), version, images, whole);
    LAB_UNTIL(lab, lab->replies > before);
    return lab->result;
}
