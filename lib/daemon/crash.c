#include "daemon/crash.h"

#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/log.h"

static const char *crash_role = "?", *crash_build = "?";
static _Atomic(const char *) phase_now = "starting";
static char stack[65536];       /* SEGV may mean that the thread's own stack is full */

void crash_phase(const char *phase) { atomic_store(&phase_now, phase); }

static void put(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return;
}

static void put_number(unsigned long n)
{
    char digits[24], *p = digits + sizeof digits - 1;

    *p = '\0';
    do
        *--p = (char)('0' + n % 10);
    while (n /= 10);
    put(p);
}

static void on_crash(int number, siginfo_t *info, void *context _unused_)
{
    void *frames[64];
    int n;

    put("\n--- crash report: gantry-");
    put(crash_role);
    put(" build ");
    put(crash_build);
    put("\nsignal ");
    put_number((unsigned long)number);
    put(" code ");
    put_number((unsigned long)(info->si_code < 0 ? 0 : info->si_code));
    put(" pid ");
    put_number((unsigned long)getpid());
    put(" phase ");
    put(atomic_load(&phase_now));
    put("\nlast log lines:\n");
    log_dump_ring(STDERR_FILENO);
    put("backtrace:\n");
    n = backtrace(frames, 64);
    backtrace_symbols_fd(frames, n, STDERR_FILENO);
    put("--- end of crash report\n");
    raise(number);              /* SA_RESETHAND: this time the default action */
}

void crash_install(const char *role, const char *build)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK | (int)SA_RESETHAND};
    stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    void *frame;

    crash_role = role;
    crash_build = build;
    backtrace(&frame, 1);       /* loads libgcc now, not in the handler */
    sigaltstack(&alternative, NULL);
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
        sigaction(fatal[i], &action, NULL);
}
