/* bench_conductor.c - what the conductor alone costs with many workers: no sockets, no ledger file.
 *
 *   bench_conductor [WORKERS]       default 1000, with 8 slots each and 10 rows per worker */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "coordinator/conductor.h"

enum { SLOTS = 8, ROUNDS = 10 };

static struct conductor *conductor;
static struct conductor_effects effects;

static double step_ms(const struct conductor_event *event, uint64_t now_ms)
{
    uint64_t started = clock_mono_ns();

    if (conductor_step(conductor, event, now_ms, &effects) < 0)
        abort();
    return (double)(clock_mono_ns() - started) / 1e6;
}

static void start(struct run_config *config, uint32_t rows)
{
    static const char *const settings[] = { "" };
    struct conductor_setup setup = { .config = config, .stage_settings = settings, .run = 1, .epoch = 1 };
    struct conductor_event hello = {
        .kind = CONDUCTOR_HELLO, .from = 1, .request = 1, .hello = {.member = {.role = MEMBER_LEARNER, .instance = 1}}};
    struct conductor_event inventory = {
        .kind = CONDUCTOR_INVENTORY, .epoch = 1, .member = 1, .request = 1, .inventory = {.stage = LEDGER_ALL}};

    if (conductor_new(&setup, &conductor) < 0 || conductor_restore(conductor, &(struct conductor_restored) { 0 }, 0, NULL) < 0)
        abort();
    (void)step_ms(&hello, 0);
    printf("open an iteration of %u rows: %.2f ms\n", rows, step_ms(&inventory, 0));
    inventory.inventory.stage = inventory.inventory.iteration = 0;
    inventory.inventory.rows = rows;
    (void)step_ms(&inventory, 0);
}

static void join(uint32_t workers, struct held_lease *held)
{
    double ms = 0;

    for (uint32_t i = 0; i < workers; i++) {
        struct conductor_event hello = {
            .kind = CONDUCTOR_HELLO,
            .from = i + 2,
            .request = 1,
            .hello = {.member = {.role = MEMBER_WORKER, .instance = i + 2, .slots = SLOTS}},
        };
        struct conductor_event request = {
            .kind = CONDUCTOR_LEASE_REQUEST, .epoch = 1, .member = i + 2, .request = 1, .lease_request = {SLOTS}};

        ms += step_ms(&hello, 0);
        ms += step_ms(&request, 0);
        for (size_t k = 0; k < effects.n; k++)
            for (size_t j = 0; effects.items[k].kind == CONDUCTOR_GRANT && j < effects.items[k].grant.n_leases; j++)
                held[i * SLOTS + j] =
                    (struct held_lease){.episode = effects.items[k].grant.leases[j].episode,
                                        .fence = effects.items[k].grant.leases[j].fence};
    }
    printf("hello and %d leases: %.3f ms a worker\n", SLOTS, ms / workers);
}

static void beat(uint32_t workers, struct held_lease *held)
{
    double ms = 0;

    for (uint32_t round = 1; round <= ROUNDS; round++)
        for (uint32_t i = 0; i < workers; i++) {
            struct conductor_event event = {
                .kind = CONDUCTOR_HEARTBEAT,
                .epoch = 1,
                .member = i + 2,
                .request = 1,
                .heartbeat = {held + i * SLOTS, SLOTS, 0},
            };

            for (int j = 0; j < SLOTS; j++)
                held[i * SLOTS + (uint32_t)j].step = round;
            ms += step_ms(&event, round * 100);
        }
    printf("%u heartbeats: %.2f ms (once a second: %.1f %% of a core)\n", workers, ms / ROUNDS, ms / ROUNDS / 10);
}

static void finish(uint32_t rows)
{
    double ms = 0;

    for (uint32_t i = 1; i < rows; i++) {
        struct journaled_episode episode = { .episode = i };
        struct conductor_event event = {
            .kind = CONDUCTOR_JOURNALED,
            .epoch = 1,
            .member = 1,
            .request = 1,
            .journaled = {.episodes = &episode, .n_episodes = 1},
        };

        ms += step_ms(&event, 1100);
    }
    printf("journaled: %.3f ms an episode\n", ms / rows);
}

int main(int argc, char **argv)
{
    uint32_t workers = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000;
    static struct run_config config = {.n_tasks = 1,
                                       .tasks = {"reach"},
                                       .prm_init = "policy",
                                       .n_stages = 1,
                                       .heartbeat_ms = 1000,
                                       .lease_ttl_ms = 10000,
                                       .first_step_ms = 60000};
    _cleanup_free_ struct held_lease *held = calloc((size_t)workers * SLOTS, sizeof(*held));

    if (!workers || !held)
        return 1;
    config.stages[0].kind = STAGE_DEMOS;
    config.stages[0].demos.episodes = (int)workers * 10;
    start(&config, workers * 10);
    join(workers, held);
    beat(workers, held);
    finish(workers * 10);
    conductor = conductor_free(conductor);
    conductor_effects_release(&effects);
    return 0;
}
