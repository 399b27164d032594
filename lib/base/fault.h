/* fault.h - named places where a test can make things go wrong.
 *
 * Compiled in always, off unless GANTRY_FAULTS is set (or fault_arm() called):
 *
 *   GANTRY_FAULTS="journal.fsync=eio@3,deliver_reply.send=drop@1,version.rename=abort@2"
 *
 * name=action@n: the action happens the n-th time the place is reached (default 1), once; `@n+` from the
 * n-th time on, `@n-m` up to the m-th. Actions: abort (as kill -9 would), crash (SIGABRT), stop (SIGSTOP: it stands
 * still there until somebody sends SIGCONT), eio, enospc, edquot, short (half the bytes), drop, nan, wrong (it looks right),
 * delay:MS. Each time is a line of the log at level debug, from which a test can tell that it happened at all (Process.fired() of
 * tests/system/conftest.py). One relaxed atomic load when nothing is armed. The list of names is in docs/storage.md. */
#pragma once

#include <stdbool.h>

enum fault_action { FAULT_NONE, FAULT_EIO, FAULT_ENOSPC, FAULT_EDQUOT, FAULT_SHORT, FAULT_DROP, FAULT_NAN, FAULT_WRONG };

/* Reach the place `name`. Abort, crash, stop and delay happen inside; the others are returned for the caller to act on. */
enum fault_action fault_point(const char *name);

/* Anything armed? Spares making up a name. */
bool fault_armed(void);

/* -errno to report for FAULT_EIO, FAULT_ENOSPC, FAULT_EDQUOT, 0 for none: `if ((r = fault_errno("x")) < 0) return r;` */
int fault_errno(const char *name);

/* Arm from a specification (replaces what was armed). -EINVAL: not understood, nothing changed. */
int fault_arm(const char *specification);
