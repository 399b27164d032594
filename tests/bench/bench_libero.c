/* bench_libero - what one core makes of a LIBERO task, beside what MuJoCo alone takes: CPU milliseconds, minimum (median).
 *
 *   bench_libero [SUITE TASK]...      default: libero_spatial 0, libero_object 0, libero_goal 0, libero_10 9
 *
 * Rows: opening (compiling, or loading from the cache), LIBERO's reset + set_init_state without pictures, a control step in both
 * orders, 25 bare mj_step from where the steps ended, a picture per camera at 256, memory of a slot. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "sim/suites/libero/libero.h"

enum { REPEATS = 60 };

static double figures[REPEATS];
static int taken;

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void print_figures(const char *what)
{
    qsort(figures, (size_t)taken, sizeof(*figures), by_size);
    printf("  %-34s %8.3f (%.3f)\n", what, figures[0], figures[taken / 2]);
    taken = 0;
}

static void note(uint64_t begun)
{
    figures[taken++] = (double)(clock_cpu_ns() - begun) / 1e6;
}

static double resident_mb(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long size, pages = 0;

    if (f && fscanf(f, "%ld %ld", &size, &pages) != 2)
        pages = 0;
    if (f)
        fclose(f);
    return (double)pages * 4096 / 1e6;
}

/* Ten no-op steps, then small random moves with the gripper open, as the Python script does. */
static void bench_steps(struct libero_slot *slot, const struct libero_task *task, enum libero_order order)
{
    const double no_op[7] = { 0, 0, 0, 0, 0, 0, -1 };
    uint32_t x = 1;

    slot->memory.order = order;
    libero_set_state(slot, task->init.values, (const double (*)[7])task->reset_fixtures[0]);
    for (int i = 0; i < 10; i++)
        libero_step(slot, no_op);
    while (taken < REPEATS) {
        double action[7] = { [6] = -1 };
        uint64_t begun;

        for (int k = 0; k < 6; k++)
            action[k] = ((double)((x = x * 1664525 + 1013904223) >> 8) / (1 << 24) - .5) * .8;
        begun = clock_cpu_ns();
        libero_step(slot, action);
        note(begun);
    }
    print_figures(order == LIBERO_REFERENCE ? "control step, reference" : "control step, onepass");
}

static void bench_physics(struct libero_slot *slot)
{
    while (taken < REPEATS) {
        uint64_t begun = clock_cpu_ns();

        for (int i = 0; i < LIBERO_SUBSTEPS; i++)
            mj_step(&slot->model, slot->mujoco.data);
        note(begun);
    }
    print_figures("25 x mj_step (the floor)");
}

static void bench_pictures(struct sim_slot *slot, int side, bool plain)
{
    static uint8_t rgb[256 * 256 * 3];
    struct sim_renderer *renderer = NULL;
    struct error error = {0};

    if (sim_renderer_open(-1, side, side, &renderer, &error) < 0)
        return;
    sim_renderer_set_plain(renderer, plain);
    for (int camera = 0; camera < LIBERO_CAMERAS; camera++) {
        char what[64];

        sim_render_camera(renderer, slot, camera, rgb);
        while (taken < 10) {
            uint64_t begun = clock_cpu_ns();

            sim_render_camera(renderer, slot, camera, rgb);
            note(begun);
        }
        snprintf(what, sizeof(what), "picture %d, %s%s", side, camera ? "wrist" : "agentview", plain ? ", plain" : "");
        print_figures(what);
    }
    sim_renderer_close(renderer);
}

static int bench(const char *suite_name, int index)
{
    struct sim_suite *suite;
    struct sim_task *task;
    struct sim_slot *base, *other;
    struct error error = {0};
    const struct sim_task_info *infos;
    const struct libero_task *libero;
    struct libero_slot *slot;
    uint64_t begun = clock_cpu_ns();
    double before;

    if (sim_suite_open(suite_name, NULL, &suite, &error) < 0)
        return fprintf(stderr, "bench_libero: %s\n", error.text), 1;
    if (index < 0 || index >= sim_suite_tasks(suite, &infos))
        return fprintf(stderr, "bench_libero: %s has no task %d\n", suite_name, index), 1;
    if (sim_task_open(suite, infos[index].name, &task, &error) < 0 || sim_slot_new(task, &base) < 0)
        return fprintf(stderr, "bench_libero: %s\n", error.text), 1;
    printf("%s/%d\n", suite_name, index);
    note(begun);
    print_figures("open (compiled or from the cache)");

    libero = (const struct libero_task *)task;
    slot = (struct libero_slot *)base;
    while (taken < REPEATS) {
        begun = clock_cpu_ns();
        libero_set_state(slot, libero->init.values, (const double (*)[7])libero->reset_fixtures[0]);
        note(begun);
    }
    print_figures("reset + set_init_state");
    bench_steps(slot, libero, LIBERO_REFERENCE);
    bench_physics(slot);
    bench_steps(slot, libero, LIBERO_ONEPASS);

    before = resident_mb();
    sim_slot_new(task, &other);
    sim_reset(other, SIM_TEST, 1, NULL);
    printf("  %-34s %8.1f MB\n", "one more slot, after a reset", resident_mb() - before);
    bench_pictures(base, 256, false);
    bench_pictures(base, 128, true);         /* what suite.chain: plain makes 64 of */
    sim_slot_free(base);
    sim_slot_free(other);
    sim_task_close(task);
    sim_suite_close(suite);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct { const char *suite; int task; } usual[] = {
        { "libero_spatial", 0 }, { "libero_object", 0 }, { "libero_goal", 0 }, { "libero_10", 9 },
    };
    int r = 0;

    for (int i = 1; i + 1 < argc && r == 0; i += 2)
        r = bench(argv[i], (int)strtol(argv[i + 1], NULL, 10));
    for (size_t i = 0; i < ARRAY_SIZE(usual) && argc < 3 && r == 0; i++)
        r = bench(usual[i].suite, usual[i].task);
    return r;
}
