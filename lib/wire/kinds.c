#include "wire/kinds.h"

#include <errno.h>

#include "base/macro.h"
#include "proto/policy.pb-c.h"
#include "proto/prm.pb-c.h"
#include "proto/train.pb-c.h"
#include "proto/trajectory.pb-c.h"
#include "wire/limits.h"

enum {
    KB = 1 << 10,
    MB = 1 << 20,
    ONCE = 0, REPEATABLE = 1,       /* idempotent; heartbeats and weights are sent with WIRE_ONCE: who sends them asks anew */
    ANY_EPOCH = 1,                  /* before_welcome */

    COORDINATOR = 1 << GANTRY__ROLE__ROLE_COORDINATOR,
    WORKER = 1 << GANTRY__ROLE__ROLE_ENV_WORKER,
    ACTOR = 1 << GANTRY__ROLE__ROLE_ACTOR,
    PRM = 1 << GANTRY__ROLE__ROLE_PRM_SERVER,
    LEARNER = 1 << GANTRY__ROLE__ROLE_LEARNER,
    CLI = 1 << GANTRY__ROLE__ROLE_CLI,
    SERVERS = COORDINATOR | ACTOR | PRM | LEARNER,
    ANYONE = SERVERS | WORKER | CLI,
};

#define KIND(x) WIRE_KIND(x)
#define BODY(x) &gantry__##x##__descriptor

/* Bodies of the control kinds grow with episodes (about 80 bytes each) and endpoints: 4 MB are 50,000 of them. */
static const struct wire_kind kinds[] = {
    /* kind, name, body, body_max, part_max, parts_max, repeat, epoch, senders */
    {KIND(ERROR), "error", NULL, 0, 0, 0, ONCE, ANY_EPOCH, SERVERS},
    {KIND(PING), "ping", NULL, 0, 0, 0, REPEATABLE, ANY_EPOCH, ANYONE},
    {KIND(PONG), "pong", NULL, 0, 0, 0, ONCE, ANY_EPOCH, SERVERS},

    {KIND(HELLO), "hello", BODY(hello), 1 * MB, 0, 0, REPEATABLE, ANY_EPOCH, ANYONE},
    {KIND(WELCOME), "welcome", BODY(welcome), 4 * MB, 0, 0, ONCE, ANY_EPOCH, COORDINATOR},
    {KIND(HEARTBEAT), "heartbeat", BODY(heartbeat), 1 * MB, 0, 0, REPEATABLE, 0, ANYONE},
    {KIND(HEARTBEAT_REPLY), "heartbeat_reply", BODY(heartbeat_reply), 4 * MB, 0, 0, ONCE, 0, COORDINATOR},
    {KIND(LEASE_REQUEST), "lease_request", BODY(lease_request), 4 * KB, 0, 0, ONCE, 0, WORKER},
    {KIND(LEASE_GRANT), "lease_grant", BODY(lease_grant), 1 * MB, 0, 0, ONCE, 0, COORDINATOR},
    {KIND(LEASE_RETURN), "lease_return", BODY(lease_return), 16 * KB, 0, 0, REPEATABLE, 0, WORKER},
    {KIND(LEASE_RETURN_REPLY), "lease_return_reply", BODY(lease_return_reply), 4 * KB, 0, 0, ONCE, 0, COORDINATOR},
    {KIND(BYE), "bye", BODY(bye), 16 * KB, 0, 0, REPEATABLE, ANY_EPOCH, ANYONE},
    {KIND(BYE_REPLY), "bye_reply", BODY(bye_reply), 4 * KB, 0, 0, ONCE, ANY_EPOCH, COORDINATOR},
    {KIND(JOURNALED), "journaled", BODY(journaled), 4 * MB, 0, 0, REPEATABLE, 0, LEARNER},
    {KIND(JOURNALED_REPLY), "journaled_reply", BODY(journaled_reply), 4 * KB, 0, 0, ONCE, 0, COORDINATOR},
    {KIND(INVENTORY), "inventory", BODY(inventory), 4 * MB, 0, 0, REPEATABLE, 0, LEARNER},
    {KIND(INVENTORY_REPLY), "inventory_reply", BODY(inventory_reply), 4 * KB, 0, 0, ONCE, 0, COORDINATOR},
    {KIND(COMMITTED), "committed", BODY(committed), 4 * MB, 0, 0, REPEATABLE, 0, LEARNER},
    {KIND(COMMITTED_REPLY), "committed_reply", BODY(committed_reply), 4 * KB, 0, 0, ONCE, 0, COORDINATOR},
    {KIND(PLAN_FAILED), "plan_failed", BODY(plan_failed), 16 * KB, 0, 0, REPEATABLE, 0, LEARNER},
    {KIND(PLAN_FAILED_REPLY), "plan_failed_reply", BODY(plan_failed_reply), 4 * KB, 0, 0, ONCE, 0, COORDINATOR},
    {KIND(VERSION_STATE), "version_state", BODY(version_state), 16 * KB, 0, 0, REPEATABLE, 0, ACTOR | PRM},
    {KIND(VERSION_STATE_REPLY), "version_state_reply", BODY(version_state_reply), 4 * KB, 0, 0, ONCE, 0, COORDINATOR},
    {KIND(OPEN_ITERATION), "open_iteration", BODY(open_iteration), 4 * MB, 0, 0, ONCE, 0, COORDINATOR},
    {KIND(PLAN), "plan", BODY(plan), 4 * MB, 0, 0, ONCE, 0, COORDINATOR},
    {KIND(VERSIONS), "versions", BODY(versions), 64 * KB, 0, 0, ONCE, 0, COORDINATOR},
    {KIND(DRAIN), "drain", BODY(drain), 16 * KB, 0, 0, ONCE, 0, COORDINATOR | CLI},
    {KIND(WORK), "work", NULL, 0, 0, 0, ONCE, 0, COORDINATOR},

    {KIND(ACT), "act", BODY(act_request), 64 * KB, 16 * MB, 16, REPEATABLE, 0, WORKER | CLI},
    {KIND(ACT_REPLY), "act_reply", BODY(act_reply), 64 * KB, 0, 0, ONCE, 0, ACTOR},
    {KIND(SCORE), "score", BODY(score_request), 64 * KB, WIRE_FRAME_MAX, WIRE_PARTS_MAX, REPEATABLE, 0, WORKER | CLI},
    {KIND(SCORE_REPLY), "score_reply", BODY(score_reply), 64 * KB, 0, 0, ONCE, 0, PRM},
    {KIND(SHADOW_SCORED), "shadow_scored", BODY(shadow_scored), 4 * KB, 0, 0, REPEATABLE, 0, PRM},
    {KIND(SHADOW_SCORED_REPLY), "shadow_scored_reply", BODY(shadow_scored_reply), 4 * KB, 0, 0, ONCE, 0, COORDINATOR},
    {KIND(DELIVER), "deliver", BODY(trajectory), WIRE_BODY_MAX, WIRE_FRAME_MAX, 16, REPEATABLE, 0, WORKER},
    {KIND(DELIVER_REPLY), "deliver_reply", BODY(deliver_reply), 16 * KB, 0, 0, ONCE, 0, LEARNER},
    {KIND(WEIGHTS), "weights", BODY(weights_request), 16 * KB, 0, 0, REPEATABLE, 0, ACTOR | PRM | LEARNER},
    {KIND(WEIGHTS_REPLY), "weights_reply", BODY(weights_reply), 1 * MB, WIRE_CHUNK, 1, ONCE, 0, LEARNER},
    {KIND(REDUCE), "reduce", BODY(reduce), 16 * KB, WIRE_FRAME_MAX, 16, REPEATABLE, 0, LEARNER},
    {KIND(REDUCE_REPLY), "reduce_reply", BODY(reduce), 16 * KB, WIRE_FRAME_MAX, 16, ONCE, 0, LEARNER},
};

/* Indexed by the number in Envelope.status. */
static const int status_errno[] = {
    [GANTRY__STATUS__STATUS_OK] = 0,
    [GANTRY__STATUS__STATUS_BAD_REQUEST] = EBADMSG,
    [GANTRY__STATUS__STATUS_WRONG_VERSION] = ESTALE,
    [GANTRY__STATUS__STATUS_LOADING] = EAGAIN,
    [GANTRY__STATUS__STATUS_BUSY] = EBUSY,
    [GANTRY__STATUS__STATUS_STALE_EPOCH] = ESRCH,
    [GANTRY__STATUS__STATUS_SHUTTING_DOWN] = ESHUTDOWN,
    [GANTRY__STATUS__STATUS_DEADLINE] = ETIMEDOUT,
    [GANTRY__STATUS__STATUS_INTERNAL] = EREMOTEIO,
    [GANTRY__STATUS__STATUS_DENIED] = EACCES,
    [GANTRY__STATUS__STATUS_PROTOCOL] = EPROTO,
};

static const char *const roles[] = {
    [GANTRY__ROLE__ROLE_NONE] = "none",
    [GANTRY__ROLE__ROLE_COORDINATOR] = "coordinator",
    [GANTRY__ROLE__ROLE_ENV_WORKER] = "env_worker",
    [GANTRY__ROLE__ROLE_ACTOR] = "actor",
    [GANTRY__ROLE__ROLE_PRM_SERVER] = "prm_server",
    [GANTRY__ROLE__ROLE_LEARNER] = "learner",
    [GANTRY__ROLE__ROLE_CLI] = "cli",
};

const struct wire_kind *wire_kind(uint32_t kind)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (kinds[i].kind == kind)
            return &kinds[i];
    return NULL;
}

const char *wire_kind_name(uint32_t kind)
{
    const struct wire_kind *k = wire_kind(kind);

    return k ? k->name : "unknown";
}

int wire_status_errno(uint32_t status)
{
    return status < ARRAY_SIZE(status_errno) ? -status_errno[status] : -EIO;
}

const char *wire_role_name(uint32_t role)
{
    return role < ARRAY_SIZE(roles) ? roles[role] : "unknown";
}

int wire_role_parse(const char *name, Gantry__Role *ret)
{
    for (size_t i = 1; i < ARRAY_SIZE(roles); i++)
        if (!strcmp(roles[i], name)) {
            *ret = (Gantry__Role)i;
            return 0;
        }
    return -EINVAL;
}
