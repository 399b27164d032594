#include "wire_lab.h"

#include "base/atomic_file.h"
#include "base/clock.h"

enum { GIVE_UP_MS = 60000 };

static void on_guard(uv_timer_t *timer)
{
    (void)timer;
}

void lab_open(struct wire_lab *lab)
{
    *lab = (struct wire_lab) {0};
    assert_int_equal(uv_loop_init(&lab->loop), 0);
    uv_timer_init(&lab->loop, &lab->guard);
    uv_timer_start(&lab->guard, on_guard, 20, 20);
    scratch_new(lab->dir);
    snprintf(lab->ipc, sizeof lab->ipc, "ipc://%s/server.ipc", lab->dir);
}

void lab_close(struct wire_lab *lab)
{
    uv_close((uv_handle_t *)&lab->guard, NULL);
    uv_run(&lab->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&lab->loop), 0);
    assert_int_equal(remove_tree(lab->dir), 0);
}

void lab_until_count(struct wire_lab *lab, const unsigned *count, unsigned want)
{
    uint64_t start_ms = clock_mono_ms();

    while (*count < want) {
        uv_run(&lab->loop, UV_RUN_ONCE);
        if (clock_mono_ms() - start_ms > GIVE_UP_MS)
            fail_msg("waited a minute: %u of %u", *count, want);
    }
}

void lab_until(struct wire_lab *lab, const bool *flag)
{
    uint64_t start_ms = clock_mono_ms();

    while (!*flag) {
        uv_run(&lab->loop, UV_RUN_ONCE);
        if (clock_mono_ms() - start_ms > GIVE_UP_MS)
            fail_msg("waited a minute in vain");
    }
}

void lab_settle(struct wire_lab *lab, unsigned ms)
{
    uint64_t start_ms = clock_mono_ms();

    while (clock_mono_ms() - start_ms < ms)
        uv_run(&lab->loop, UV_RUN_ONCE);
}
