/* bench_sim - what one core makes of the built-in suite: steps/s of physics alone and with 64x64 pictures, and how good
 * and how fast the expert and the demonstrators are.
 *
 *   bench_sim [EPISODES [IMAGE]]        default 200 episodes a task, 64 */
#include <stdio.h>

#include "base/clock.h"
#include "sim/sim.h"

struct tally {
    int episodes, successes, steps, in_limit, longest;
    uint64_t step_ns, render_ns;
};

/* Play `n` val episodes of at most `limit` steps; style NULL: the expert. */
static void play(struct sim_slot *slot, struct sim_renderer *renderer, const char *style, int n, int limit, uint8_t *rgb,
                 struct tally *t)
{
    float action[SIM_ACTION_DIMS], label[SIM_ACTION_DIMS];
    int e, step;
    uint64_t at;
    bool success;

    *t = (struct tally) {0};
    for (e = 0; e < n; e++) {
        success = false;
        if (sim_reset(slot, SIM_VAL, (uint64_t)e, NULL) < 0)
            continue;
        for (step = 0; step < limit && !success; step++) {
            if (renderer) {
                at = clock_cpu_ns();
                sim_render(renderer, slot, rgb);
                t->render_ns += clock_cpu_ns() - at;
            }
            if ((style ? sim_demonstrate(slot, style, (uint64_t)e, step, action, label) : sim_expert(slot, action)) < 0)
                break;
            at = clock_cpu_ns();
            if (sim_step(slot, action, &success) < 0)
                break;
            t->step_ns += clock_cpu_ns() - at;
        }
        t->episodes++;
        t->steps += step;
        t->successes += success;
        if (success)
            t->longest = MAX(t->longest, step);
    }
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 200, size = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 64;
    int i, tasks;
    const struct sim_task_info *infos;
    struct sim_renderer *renderer = NULL;
    struct sim_suite *suite;
    struct error error = {0};
    uint8_t *rgb = malloc((size_t)size * (size_t)size * 3);

    if (sim_suite_open("tabletop", NULL, &suite, &error) < 0)
        return fprintf(stderr, "bench_sim: %s\n", error.text), 1;
    if (sim_renderer_open(-1, size, size, &renderer, &error) < 0)
        fprintf(stderr, "bench_sim: without pictures: %s\n", error.text);
    printf("renderer %s, image %d, CPU time of one thread\n", renderer ? sim_renderer_name(renderer) : "none", size);
    printf("%-18s %-7s %8s %6s %4s %9s %9s %9s\n", "task", "player", "success", "steps", "max", "ms/step", "ms/render",
           "steps/s");

    tasks = sim_suite_tasks(suite, &infos);
    for (i = 0; i < tasks; i++) {
        static const char *const styles[] = { NULL, "clean", "slow" };
        struct sim_task *task;
        struct sim_slot *slot;
        struct tally t;
        size_t s;

        if (sim_task_open(suite, infos[i].name, &task, &error) < 0)
            return fprintf(stderr, "bench_sim: %s\n", error.text), 1;
        if (sim_slot_new(task, &slot) < 0)
            return 1;
        for (s = 0; s < ARRAY_SIZE(styles); s++) {
            double ms, render_ms;

            play(slot, renderer, styles[s], n, infos[i].max_steps, rgb, &t);
            ms = (double)t.step_ns / 1e6 / t.steps;
            render_ms = (double)t.render_ns / 1e6 / t.steps;
            printf("%-18s %-7s %8.3f %6.1f %4d %9.3f %9.3f %9.0f\n", infos[i].name, styles[s] ? styles[s] : "expert",
                   (double)t.successes / t.episodes, (double)t.steps / t.episodes, t.longest, ms, render_ms, 1000 / (ms + render_ms));
        }
        sim_slot_free(slot);
        sim_task_close(task);
    }
    sim_renderer_close(renderer);
    sim_suite_close(suite);
    free(rgb);
    return 0;
}
