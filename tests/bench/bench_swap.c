/* bench_swap - what a server's change to the next version of a policy with adapters takes.
 *
 *   bench_swap MODEL [--device cpu|cuda:N]
 *
 * MODEL: an OpenVLA directory; it is linked into a run of its own as version 0, two adapters of rank 32 on it are versions 1 and 2.
 * Loaded as an actor loads them (manifest, weights, packing, probe): version 1 as the first of its process, version 2 beside it.
 * Printed: seconds of both, their ratio, and the device's memory after each. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "nn/device/device.h"
#include "nn/models/openvla_adapter.h"
#include "run/manifest.h"
#include "serve/policy_version.h"
#include "tests/harness/scratch.h"

static char run_dir[SCRATCH_PATH];

static void die(const char *what, int r, const struct error *error)
{
    fprintf(stderr, "bench_swap: %s: %s\n", what, error_text(error, r));
    exit(EXIT_FAILURE);
}

static void commit_adapter(struct openvla *model, uint64_t number, uint8_t ret_digest[SHA256_SIZE])
{
    const struct lora_spec spec = {.r = 32, .alpha = 16, .targets = "all-linear", .base = "../v000000"};
    struct manifest manifest = {.run = 1, .number = number};
    struct error error = {0};
    char dir[VERSION_PATH];
    int r = openvla_lora_new(model, &spec, number, &error);

    if (r == 0)
        r = version_begin(run_dir, 0, number, dir, &error);
    if (r == 0)
        r = openvla_adapter_save(model, dir, &error);
    if (r == 0)
        r = version_commit(run_dir, dir, &manifest, &error);
    if (r == 0)
        r = openvla_lora_detach(model);
    if (r < 0)
        die("an adapter", r, &error);
    memcpy(ret_digest, manifest.digest, SHA256_SIZE);
    manifest_release(&manifest);
}

static struct policy_version *load(uint64_t number, const uint8_t digest[SHA256_SIZE], double *ret_s)
{
    struct policy_version *version;
    uint64_t from = clock_mono_ns();
    struct error error = {0};
    char dir[VERSION_PATH];
    size_t unused, all;
    int r = version_path(run_dir, 0, number, dir);

    if (r == 0)
        r = policy_version_load(dir, digest, true, false, &version, &error);
    if (r < 0)
        die(dir, r, &error);
    *ret_s = (double)(clock_mono_ns() - from) * 1e-9;
    printf("version %llu: %.2f s", (unsigned long long)number, *ret_s);
    if (device_process() && device_process()->k->memory && device_process()->k->memory(&unused, &all) == 0)
        printf(", %.0f MiB of the device are in use", (double)(all - unused) / 1048576);
    printf("\n");
    return version;
}

int main(int argc, char **argv)
{
    struct policy_version *first, *second;
    struct manifest manifest = {0};
    struct device *device = NULL;
    struct error error = {0};
    struct openvla *model;
    uint8_t digests[2][SHA256_SIZE];
    double first_s, second_s;
    char base[VERSION_PATH];
    int r;

    if (argc != 2 && !(argc == 4 && !strcmp(argv[2], "--device"))) {
        fprintf(stderr, "usage: bench_swap MODEL [--device cpu|cuda:N]\n");
        return 2;
    }
    scratch_new(run_dir);
    r = version_import(run_dir, 0, 0, argv[1], &manifest, &error);
    if (r == 0)
        r = version_path(run_dir, 0, 0, base);
    if (r == 0)
        r = openvla_load_halves(base, OPENVLA_LARGE, &model, &error);
    if (r < 0)
        die(argv[1], r, &error);
    for (uint64_t i = 0; i < 2; i++)
        commit_adapter(model, i + 1, digests[i]);
    openvla_free(model);
    if (argc == 4 && (r = device_open(argv[3], &device, &error)) < 0)
        die(argv[3], r, &error);
    device_set_process(device);
    first = load(1, digests[0], &first_s);
    second = load(2, digests[1], &second_s);
    printf("the second in %.2f of the first's time\n", second_s / first_s);
    policy_version_free(first);
    policy_version_free(second);
    manifest_release(&manifest);
    device_set_process(NULL);
    device_unref(device);
    return 0;
}
