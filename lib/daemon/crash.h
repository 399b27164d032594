/* crash.h - what a daemon says when it dies of a bug: version, build, phase, the last log lines, a backtrace.
 *
 * Installed for SEGV, BUS, ILL, FPE, ABRT. The handler uses only async-signal-safe calls and its own stack, then
 * lets the signal kill the process (core dumps and exit status stay what they were). */
#pragma once

/* `role` and `build` are kept, not copied. Calls backtrace(3) once, so that the handler need not load anything. */
void crash_install(const char *role, const char *build);

/* What the daemon is doing, for the report: constant text. Any thread. */
void crash_phase(const char *phase);
