/* watchdog.h - which children's event loops turn: heard from them as systemd hears it (sd_notify, daemon/notify.h).
 *
 *   watchdog_new -> { watchdog_environment, watchdog_add at a child's start; watchdog_remove at its end }* -> watchdog_free
 *
 * From its READY=1 to its STOPPING=1 a child must say something within hung_ms. Before and after that its loop may stand still:
 * it opens what it needs, or waits for its threads. One that says nothing is named once to on_hung. What is counted is our own
 * looks in a row without a word from it: time in which we did not run, or nobody did, is nobody's fault.
 *
 * Thread rule: the loop's thread. */
#pragma once

#include "base/error.h"
#include "daemon/loop.h"

struct watchdog;
typedef void watchdog_hung_fn(int pid, void *arg);

int watchdog_new(struct loop *loop, unsigned hung_ms, watchdog_hung_fn *on_hung, void *arg, struct watchdog **ret);
struct watchdog *watchdog_free(struct watchdog *watchdog);
DEFINE_FREEP(struct watchdog, watchdog_free)

/* Ours, with what tells a child to speak to us instead of to whom we speak. The caller frees it, the strings with it. NULL: out of
 * memory. */
char **watchdog_environment(const struct watchdog *watchdog);

int watchdog_add(struct watchdog *watchdog, int pid);       /* -ENOMEM */
void watchdog_remove(struct watchdog *watchdog, int pid);   /* one that is not there is fine */
