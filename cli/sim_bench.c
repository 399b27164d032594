/* sim_bench.c - `gantry sim bench`: env steps a second, with and without pictures, by slots and processes.
 *
 * As the env worker does it: one thread a process steps its slots in turn and draws them. Every row has processes of its own,
 * which open the suite, wait for one another and then play small random moves for some seconds. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/macro.h"
#include "base/philox.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "cli/sim.h"

enum { MAX_LIST = 8, MAX_SLOTS = 64, MAX_PROCESSES = 64 };

struct bench {
    struct sim_target target;
    long size, seconds, limit;
    int slots[MAX_LIST], n_slots, processes[MAX_LIST], n_processes, pictures[MAX_LIST], n_pictures;
};

struct figures { /* of one process, through a pipe */
    uint64_t steps, wall_ns, cpu_ns, drawing_ns;
    long resident_kb;
    int result;
    char text[200];
    char drawn_by[100];         /* "-": no pictures */
};

/* ---- one process ---------------------------------------------------------------------------------------- */

struct player {
    struct sim_slot *slot;
    struct philox draws;
    uint64_t state;
    int step;
};

static int advance(const struct bench *b, struct player *player, struct sim_renderer *renderer, int pictures, uint8_t *rgb)
{
    float action[SIM_ACTION_MAX] = {0};
    int r = 0;

    if (player->step++ >= (int)b->limit) {
        player->step = 1;
        r = sim_reset(player->slot, b->target.split, player->state += MAX_SLOTS, NULL);
    }
    for (int i = 0; i < 6; i++)
        action[i] = .8f * (philox_uniform(&player->draws) - .5f);
    action[6] = -1;
    if (r == 0)
        r = sim_step(player->slot, action, NULL);
    for (int camera = 0; camera < pictures && r == 0; camera++)
        r = sim_render_camera(renderer, player->slot, camera, rgb);
    return r;
}

static int measure(const struct bench *b, struct player *players, int slots, struct sim_renderer *renderer, int pictures,
                   uint8_t *rgb, struct figures *f)
{
    const uint64_t end = clock_mono_ns() + (uint64_t)b->seconds * 1000000000u, wall = clock_mono_ns(), cpu = clock_cpu_ns();
    const uint64_t drawn = renderer ? sim_renderer_busy_ns(renderer) : 0;
    int r = 0;

    for (int i = 0; r == 0 && (clock_mono_ns() < end || f->steps < (uint64_t)slots); i = (i + 1) % slots, f->steps++)
        r = advance(b, &players[i], renderer, pictures, rgb);
    f->wall_ns = clock_mono_ns() - wall;
    f->cpu_ns = clock_cpu_ns() - cpu;
    f->drawing_ns = (renderer ? sim_renderer_busy_ns(renderer) : 0) - drawn;
    return r;
}

/* Everything as it is when a worker has played for a while: contexts made, pages touched. */
static int prepare(const struct bench *b, struct sim_target *target, int slots, int pictures, struct player *players,
                   struct sim_renderer **renderer, uint8_t *rgb, struct error *error)
{
    int r = sim_target_open(target, error);

    if (r == 0 && pictures > 0)
        r = sim_renderer_open(sim_suite_device(target->suite, target->device), (int)b->size, (int)b->size, renderer, error);
    if (r < 0)
        return r;
    for (int i = 0; i < slots && r == 0; i++) {
        players[i] = (struct player){.draws = philox_at((uint64_t)i, PHILOX_NOISE, 0, 0, 0), .state = (uint64_t)i};
        r = sim_slot_new(target->task, &players[i].slot);
        if (r == 0)
            r = sim_reset(players[i].slot, target->split, players[i].state, NULL);
        if (r == 0)
            r = advance(b, &players[i], *renderer, pictures, rgb);
    }
    return r < 0 ? error_set(error, -r, "a slot: %s", strerror(-r)) : 0;
}

static void run_process(const struct bench *b, int slots, int pictures, int ready, int go, int out)
{
    struct sim_target target = b->target;
    struct player players[MAX_SLOTS] = {0};
    struct sim_renderer *renderer = NULL;
    struct figures f = {0};
    struct error error = {0};
    struct rusage usage;
    uint8_t *rgb = malloc((size_t)b->size * (size_t)b->size * 3);
    char byte = 0;

    f.result = rgb ? prepare(b, &target, slots, pictures, players, &renderer, rgb, &error) : -ENOMEM;
    snprintf(f.drawn_by, sizeof(f.drawn_by), "%s%s", renderer ? sim_renderer_name(renderer) : "-",
             renderer && sim_renderer_is_software(renderer) ? ", in software" : "");
    if (write(ready, &byte, 1) != 1 || close(ready) < 0 || read(go, &byte, 1) < 0)     /* closed: who dies before is missed */
        _exit(1);
    if (f.result == 0)
        f.result = measure(b, players, slots, renderer, pictures, rgb, &f);
    if (f.result < 0)
        snprintf(f.text, sizeof(f.text), "%s", error_text(&error, f.result));
    getrusage(RUSAGE_SELF, &usage);
    f.resident_kb = usage.ru_maxrss;
    _exit(write(out, &f, sizeof(f)) == sizeof(f) ? 0 : 1); /* the kernel takes the rest back */
}

/* ---- a row ------------------------------------------------------------------------------------------------ */

struct pipes {
    int ready[2], go[2], out[2];
};

static void start_processes(const struct bench *b, int processes, int slots, int pictures, const struct pipes *pipes, pid_t *pids)
{
    fflush(stdout);
    for (int i = 0; i < processes; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            close(pipes->go[1]);
            run_process(b, slots, pictures, pipes->ready[1], pipes->go[0], pipes->out[1]);
        }
    }
}

static int gather(const struct pipes *pipes, int processes, struct figures *all, struct error *error)
{
    int ready = 0;
    char byte;

    while (ready < processes && read(pipes->ready[0], &byte, 1) == 1)
        ready++;
    close(pipes->go[1]); /* all of them at once; also when one has died, or the others would wait for ever */
    if (ready < processes)
        return error_set(error, EIO, "a process of the benchmark died while it opened the suite");
    for (int i = 0; i < processes; i++)
        if (read(pipes->out[0], &all[i], sizeof(all[i])) != sizeof(all[i]))
            return error_set(error, EIO, "a process of the benchmark died");
    for (int i = 0; i < processes; i++)
        if (all[i].result < 0)
            return error_set(error, -all[i].result, "%s", all[i].text);
    return 0;
}

static int open_pipes(struct pipes *pipes, struct error *error)
{
    if (pipe(pipes->ready) < 0 || pipe(pipes->go) < 0 || pipe(pipes->out) < 0)
        return error_set(error, errno, "no pipe: %s", strerror(errno));
    return 0;
}

static void print_row(int pictures, int processes, int slots, const struct figures *all)
{
    double rate = 0, cpu = 0, drawing = 0, steps = 0;
    long resident = 0;
    bool alike = true;

    for (int i = 0; i < processes; i++) {
        rate += (double)all[i].steps / ((double)all[i].wall_ns / 1e9);
        cpu += (double)all[i].cpu_ns;
        drawing += (double)all[i].drawing_ns;
        steps += (double)all[i].steps;
        resident = MAX(resident, all[i].resident_kb);
        alike = alike && !strcmp(all[i].drawn_by, all[0].drawn_by);
    }
    printf("%8d  %9d  %5d  %11.1f  %14.2f  %12.1f %%  %11ld  %s%s\n", pictures, processes, slots, rate, cpu / steps / 1e6,
           100 * drawing / cpu, resident / 1000, all[0].drawn_by, alike ? "" : ", others by something else");
    fflush(stdout);
}

static int bench_row(const struct bench *b, int pictures, int processes, int slots, struct error *error)
{
    struct figures all[MAX_PROCESSES];
    pid_t pids[MAX_PROCESSES];
    struct pipes pipes;
    int r = open_pipes(&pipes, error);

    if (r < 0)
        return r;
    start_processes(b, processes, slots, pictures, &pipes, pids);
    close(pipes.ready[1]);
    close(pipes.out[1]);
    close(pipes.go[0]);
    r = gather(&pipes, processes, all, error);
    for (int i = 0; i < processes; i++)
        if (pids[i] > 0)
            (void)waitpid(pids[i], NULL, 0);
    close(pipes.ready[0]);
    close(pipes.out[0]);
    if (r == 0)
        print_row(pictures, processes, slots, all);
    return r;
}

/* ---- the command -------------------------------------------------------------------------------------------- */

/* "1,2,4" */
static int read_list(int *argc, char **argv, const char *name, const char *value, long hi, int *ret, int *ret_n,
                     struct error *error)
{
    const char *given = model_option(argc, argv, name), *at = given ? given : value;
    char *end;
    int n = 0;

    for (;; at = end + 1) {
        long number = strtol(at, &end, 10);

        if (end == at || (*end && *end != ',') || number < 0 || number > hi || n == MAX_LIST)
            return error_set(error, EINVAL, "%s: '%s' is not a list of at most %d numbers up to %ld, such as %s", name, given,
                             MAX_LIST, hi, value);
        ret[n++] = (int)number;
        if (!*end)
            break;
    }
    *ret_n = n;
    return 0;
}

static int read_words(int *argc, char **argv, struct bench *b, struct error *error)
{
    int r = sim_target_read(argc, argv, &b->target, error);

    if (r == 0)
        r = sim_number(argc, argv, "--size", 8, 4096, 256, &b->size, error);
    if (r == 0)
        r = sim_number(argc, argv, "--seconds", 1, 3600, 3, &b->seconds, error);
    if (r == 0)
        r = sim_number(argc, argv, "--steps", 1, 100000, 0, &b->limit, error);
    if (r == 0)
        r = read_list(argc, argv, "--slots", "1,2,4,8", MAX_SLOTS, b->slots, &b->n_slots, error);
    if (r == 0)
        r = read_list(argc, argv, "--processes", "1,2", MAX_PROCESSES, b->processes, &b->n_processes, error);
    if (r == 0)
        r = read_list(argc, argv, "--pictures", "0,1,2", 15, b->pictures, &b->n_pictures, error);
    for (int i = 0; i < b->n_slots && r == 0; i++)
        if (b->slots[i] == 0)
            r = error_set(error, EINVAL, "--slots: at least 1");
    for (int i = 0; i < b->n_processes && r == 0; i++)
        if (b->processes[i] == 0)
            r = error_set(error, EINVAL, "--processes: at least 1");
    return r;
}

int sim_bench(int argc, char **argv)
{
    struct bench b = {0};
    struct error error = {0};
    struct sim_target here;
    int r = read_words(&argc, argv, &b, &error);

    if (r < 0)
        return sim_fail(&error, r);
    if (argc != 0)
        return CLI_USAGE;
    here = b.target; /* compiles what is not in the cache yet; nothing of it is shared with the processes */
    r = sim_target_open(&here, &error);
    if (r < 0)
        return sim_fail(&error, r);
    if (!b.limit)
        b.limit = here.info->max_steps;
    printf("%s %s, %s states, pictures of %ld x %ld, %ld s a row\n", b.target.suite_name, here.info->name,
           sim_split_name(b.target.split), b.size, b.size, b.seconds);
    printf("pictures  processes  slots  env steps/s  CPU ms a step  in renderer     MB resident  drawn by\n");
    for (int k = 0; k < b.n_pictures && r == 0; k++)
        for (int p = 0; p < b.n_processes && r == 0; p++)
            for (int s = 0; s < b.n_slots && r == 0; s++)
                if (b.pictures[k] <= here.info->cameras)
                    r = bench_row(&b, b.pictures[k], b.processes[p], b.slots[s], &error);
    sim_target_close(&here);
    return r < 0 ? sim_fail(&error, r) : CLI_OK;
}
