#include "base/fault.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <signal.h>

#include "base/log.h"
#include "base/macro.h"

enum { MAX_FAULTS = 32, ACTION_ABORT = 100, ACTION_CRASH, ACTION_STOP, ACTION_DELAY };

struct fault {
    char name[48];
    int action;
    unsigned at, until, reached;        /* from the at-th time it is reached to the until-th */
    unsigned delay_ms;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct fault faults[MAX_FAULTS];
static atomic_int armed;

static int parse_one(char *text, struct fault *ret)
{
    static const struct { const char *word; int action; } actions[] = {
        {"abort", ACTION_ABORT}, {"crash", ACTION_CRASH}, {"nan", FAULT_NAN}, {"eio", FAULT_EIO}, {"enospc", FAULT_ENOSPC},
        {"edquot", FAULT_EDQUOT}, {"short", FAULT_SHORT}, {"drop", FAULT_DROP}, {"wrong", FAULT_WRONG}, {"stop", ACTION_STOP}, {"delay", ACTION_DELAY},
    };
    struct fault f = {.at = 1, .until = 1};
    char *action = strchr(text, '='), *at, *delay, *end;

    if (!action || action == text || (size_t)(action - text) >= sizeof f.name)
        return -EINVAL;
    *action++ = '\0';
    snprintf(f.name, sizeof f.name, "%s", text);
    at = strchr(action, '@');
    if (at) {
        *at++ = '\0';
        f.at = f.until = (unsigned)strtoul(at, &end, 10);
        if (end == at || f.at == 0)
            return -EINVAL;
        if (*end == '-')
            f.until = (unsigned)strtoul(end + 1, &end, 10);
        else if (*end == '+' && end++)
            f.until = UINT_MAX;
        if (*end || f.until < f.at)
            return -EINVAL;
    }
    delay = strchr(action, ':');
    if (delay) {
        *delay++ = '\0';
        f.delay_ms = (unsigned)strtoul(delay, &end, 10);
        if (end == delay || *end)
            return -EINVAL;
    }
    for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
        if (!strcmp(action, actions[i].word))
            f.action = actions[i].action;
    if (!f.action)
        return -EINVAL;
    *ret = f;
    return 0;
}

int fault_arm(const char *specification)
{
    _cleanup_free_ char *copy = strdup(specification ? specification : "");
    struct fault parsed[MAX_FAULTS];
    char *save = NULL, *item;
    int n = 0, r;

    if (!copy)
        return -ENOMEM;
    for (item = strtok_r(copy, ", ", &save); item; item = strtok_r(NULL, ", ", &save)) {
        if (n == MAX_FAULTS)
            return -EINVAL;
        r = parse_one(item, &parsed[n]);
        if (r < 0)
            return r;
        n++;
    }
    pthread_mutex_lock(&lock);
    if (n)
        memcpy(faults, parsed, (size_t)n * sizeof parsed[0]);
    atomic_store(&armed, n);
    pthread_mutex_unlock(&lock);
    return 0;
}

static void arm_from_environment(void)
{
    const char *specification = getenv("GANTRY_FAULTS");

    if (specification && fault_arm(specification) < 0) {
        fprintf(stderr, "GANTRY_FAULTS not understood: %s\n", specification);
        abort();
    }
}

bool fault_armed(void)
{
    pthread_once(&once, arm_from_environment);
    return atomic_load_explicit(&armed, memory_order_relaxed) > 0;
}

enum fault_action fault_point(const char *name)
{
    int action = FAULT_NONE, i, n;
    unsigned delay_ms = 0, reached = 0;

    pthread_once(&once, arm_from_environment);
    n = atomic_load_explicit(&armed, memory_order_relaxed);
    if (n == 0)
        return FAULT_NONE;
    pthread_mutex_lock(&lock);
    for (i = 0; i < n; i++) {
        struct fault *f = &faults[i];

        if (strcmp(f->name, name))
            continue;
        f->reached++;
        if (f->reached >= f->at && f->reached <= f->until) {
            action = f->action;
            reached = f->reached;
            delay_ms = f->delay_ms;
        }
    }
    pthread_mutex_unlock(&lock);
    if (action != FAULT_NONE)
        log_debug("fault", "place=%s reached=%u", name, reached);
    if (action == ACTION_ABORT)
        raise(SIGKILL);         /* as a kill -9 at this very place: nothing is flushed, no handler runs */
    if (action == ACTION_CRASH)
        abort();
    if (action == ACTION_STOP) {
        raise(SIGSTOP);
        return FAULT_NONE;
    }
    if (action == ACTION_DELAY) {
        usleep(delay_ms * 1000u);
        return FAULT_NONE;
    }
    return (enum fault_action)action;
}

int fault_errno(const char *name)
{
    switch (fault_point(name)) {
    case FAULT_EIO: return -EIO;
    case FAULT_ENOSPC: return -ENOSPC;
    case FAULT_EDQUOT: return -EDQUOT;
    default: return 0;
    }
}
