/* bench_gpu_count.c - whole models on a device that only counts (tests/harness/count_device.h): what their passes put on a
 * device, what that takes at the least, and what putting it there costs this host. Needs no device: OpenVLA-7B's size with
 * nothing in it.
 *
 *   bench_gpu_count [-v] [PART [MODEL]]          PART: act, adapters, train, oft, prm, score; all by default. -v: by kind of
 *                                                kernel
 *
 * Three times stand side by side. The roofline of the model: products and attention at 790 TFLOP/s or each weight read once at
 * 4.3 TB/s (the rates that are assumed of an H200), norms and activations for nothing. Our kernels: each of those that are really
 * put there at the same rates, one after the other, without a gap. And the host: CPU seconds of one thread for all that is not
 * the driver's, which is told beside it as an assumption. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/harness/count_device.h"
#include "tests/harness/device_bench_internal.h"
#include "tests/harness/synthetic.h"

/* Seconds of the host that are assumed: a kernel's launch; what a library's call takes beyond one. */
static const double launch_cost = 2.5e-6, library_cost = 2.5e-6;
enum { SHOWN = 200 };           /* of the whole: kinds that take less are told as others */
#define H200 ((size_t)139 << 30)
#define SMALL ((size_t)56 << 30)        /* where blocks are computed twice */

static bool verbose;

static unsigned long long library_calls(const struct counts *c)
{
    return c->kind[COUNT_product].launches + c->kind[COUNT_thin].launches + c->kind[COUNT_attention].launches +
           c->kind[COUNT_attention_backward].launches;
}

static void show_kinds(const struct counts *c)
{
    struct count others = {0};
    bool shown[COUNT_ALL] = {false};

    for (;;) {
        int most = -1;

        for (int i = 0; i < COUNT_ALL; i++)
            if (!shown[i] && (most < 0 || c->kind[i].seconds > c->kind[most].seconds))
                most = i;
        if (most < 0)
            break;
        shown[most] = true;
        if (c->kind[most].seconds * SHOWN < c->total.seconds) {
            others.launches += c->kind[most].launches;
            others.bytes += c->kind[most].bytes;
            others.flops += c->kind[most].flops;
            others.seconds += c->kind[most].seconds;
            continue;
        }
        printf("    %-36s %7llu %9.3f GB %9.3f TFLOP %9.3f ms %5.1f %%\n", count_names[most], c->kind[most].launches,
               c->kind[most].bytes * 1e-9,
               c->kind[most].flops * 1e-12, c->kind[most].seconds * 1e3, 100 * c->kind[most].seconds / c->total.seconds);
    }
    printf("    %-36s %7llu %9.3f GB %9.3f TFLOP %9.3f ms %5.1f %%\n", "others", others.launches, others.bytes * 1e-9,
           others.flops * 1e-12, others.seconds * 1e3, 100 * others.seconds / c->total.seconds);
}

/* host: seconds. floor 0: there is no roofline to hold it against. */
static void show(const char *what, const struct counts *c, double host, double floor)
{
    unsigned long long calls = MIN(library_calls(c), c->issued);

    printf("  %-30s %8.2f ms", what, c->total.seconds * 1e3);
    if (floor > 0)
        printf(", roofline %8.2f (%5.1f %%)", floor * 1e3, 100 * floor / c->total.seconds);
    printf("; %llu kernels, %.2f GB, %.2f TFLOP; host %.2f ms, the driver %.1f more for %llu calls; up %.2f MB in %llu, "
           "down %.2f MB in %llu, waits %llu\n",
           c->total.launches, c->total.bytes * 1e-9, c->total.flops * 1e-12, host * 1e3,
           ((double)c->issued * launch_cost + (double)calls * library_cost) * 1e3,
           c->issued, c->uploaded * 1e-6, c->uploads, c->downloaded * 1e-6, c->downloads, c->waits);
    if (verbose)
        show_kinds(c);
}

static void tell(const char *model, const char *what, const char *unit, int batch, double seconds, double floor)
{
    struct counts c = count_read();

    printf("%s %s, B = %d: roofline %.1f %s/s, our kernels %.1f, aim %.1f\n", model, what, batch, batch / floor, unit,
           batch / c.total.seconds, batch / floor * (strstr(what, "learns") ? .5 : .7));
    show("whole", &c, seconds, floor);
}

/* ---- acting, pass by pass ---------------------------------------------------------------------------------------- */

static double thread_seconds(void)
{
    struct timespec at;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

/* As openvla_act goes, but for what is drawn. The first call of a batch plans, the second records its steps; the third is what it
 * costs from then on. */
static int act_by_pass(struct bench_run *run, const struct act_item *items, int call)
{
    static const char *const names[] = {"  first step, as ever", "  second, recorded as a graph", "  a step replayed"};
    int32_t token[BENCH_MOST] = {0};
    struct act_pass pass;
    double begin;
    int r;

    for (int step = 0; step < run->model->config.action_dims; step++) {
        count_clear();
        begin = thread_seconds();
        r = step ? openvla_step(run->model, run->session, token, true, &pass) : openvla_prefill(run->model, run->session, items,
                run->batch, true, &pass);
        if (r >= 0 && !tape_values(&run->session->tape, pass.logits))
            r = run->session->tape.error;
        if (r < 0)
            return r;
        begin = thread_seconds() - begin;
        if ((call == 2 && step <= 1) || (call == 0 && (step == 1 || step == 2))) {
            struct counts c = count_read();

            show(call == 2 ? step ? names[2] : "  prefill" : names[step - 1], &c, begin, 0);
        }
        for (int i = 0; i < run->batch; i++)
            token[i] = 100 + (7 * step + 13 * i) % 50;          /* inputs of equal bytes are not recorded */
    }
    return 0;
}

static int act_passes(const struct device_bench *bench, bool adapters, struct error *error)
{
    struct bench_run run = {.bench = bench};
    int r;

    device_set_process(bench->device);
    r = bench_open_model(&run, error);
    if (r >= 0 && adapters)
        r = bench_add_adapters(&run, error);
    r = r < 0 ? r : bench_pack(&run, run.model, false, error);
    r = r < 0 ? r : openvla_session_new(&run.model->config, BENCH_MOST, &run.session);
    for (int k = 0; k < BENCH_BATCHES && r >= 0; k++) {
        struct act_item items[BENCH_MOST] = {0};

        run.batch = bench->batch[k];
        for (int i = 0; i < run.batch; i++)
            items[i] = (struct act_item) {.images = {run.pictures + (size_t)i * run.picture}, .n_images = 1, .prompt = run.prompt,
                                          .n_prompt = run.n_prompt, .temperature = 1, .seed = 1, .episode = (uint64_t)i};
        printf("%s%s, B = %d, %d rows each, pass by pass\n", bench->model, adapters ? " with adapters" : "", run.batch,
               run.model->config.patches + run.n_prompt);
        for (int call = 0; call < 3 && r >= 0; call++)
            r = act_by_pass(&run, items, call);
    }
    openvla_session_free(run.session);
    openvla_free(run.model);
    free(run.pictures);
    free(run.prompt);
    device_set_process(NULL);
    return r;
}

int main(int argc, char **argv)
{
    static const struct { const char *name; size_t memory; } parts[] = {{"act", H200}, {"adapters", H200}, {"train", H200},
                                                                        {"train", SMALL}, {"oft", H200},
                                                                        {"prm", H200}, {"score", H200}};
    struct device_bench bench = {.model = "openvla-7b", .fast = true, .batch = {1, 8, 64}, .train_batch = {16, 32}, .warm = 2,
                                 .repeats = 3,
                                 .flops = 790e12, .bytes = 4.3e12, .out = stdout, .before = count_clear, .tell = tell};
    struct error error = {0};
    const char *only;
    int r = 0;

    verbose = argc > 1 && !strcmp(argv[1], "-v");
    only = argc > 1 + verbose ? argv[1 + verbose] : NULL;
    if (argc > 2 + verbose)
        bench.model = argv[2 + verbose];
    setvbuf(stdout, NULL, _IOLBF, 0);
    synthetic_hollow();
    printf("assumed: 4.3 TB/s, 790 TFLOP/s, %.1f us a launch, %.1f more a library's call; the host's time is measured, on this "
           "machine\n", launch_cost * 1e6, library_cost * 1e6);
    for (size_t i = 0; i < ARRAY_SIZE(parts) && r >= 0; i++) {
        const char *name = parts[i].name;

        if (only && strcmp(only, name))
            continue;
        if (parts[i].memory != H200)
            printf("with %zu GiB of memory:\n", parts[i].memory >> 30);
        count_speeds(bench.bytes, bench.flops, parts[i].memory);
        r = device_wrap(count_kernels(), 0, &bench.device, &error);
        if (r >= 0 && name[0] == 'a')
            r = act_passes(&bench, name[1] == 'd', &error);
        r = r < 0 ? r : device_bench_run(&bench, name, &error);
        bench.device = device_unref(bench.device);
    }
    if (r < 0)
        printf("bench_gpu_count: %s\n", error.text[0] ? error.text : strerror(-r));
    return r < 0;
}
