/* test_device.h - the device that device tests use: the emulated one, or, with GANTRY_TEST_DEVICE=cuda:0, a real one (with
 * GANTRY_TEST_OWN its own kernels alone: cuBLASLt and cuDNN are not opened). GANTRY_EMULATED_APART=1: the emulated one's memory
 * is not the host's, at twice the time and more. GANTRY_EMULATED_REORDERED=1: it sums as libraries do, which bounds must bear.
 * Setup and teardown for groups that need nothing beside it. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nn/device/device.h"
#include "tests/emulate/emulate.h"

static struct device *device;

/* Whatever a test does not tell of a real device's failures: what it is, and at the end the driver's last word. */
static inline void test_device_last_word(void)
{
    const char *word = cuda_kernels()->last_error();

    if (strcmp(word, "no error"))
        printf("the driver's last error: %s\n", word);
}

static inline void test_device_tell(const struct device *opened)
{
    static bool told;
    struct device_versions v = device_versions(opened);
    const struct device_facts *f = &opened->facts;

    if (told)
        return;
    told = true;
    printf("%s, compute %d.%d, driver for CUDA %d, runtime %d, cuBLASLt %zu, cuDNN %zu%s%s; %zu of %zu MiB free\n", f->name,
           f->major, f->minor, f->driver, f->runtime, v.blas, v.dnn, opened->no_dnn[0] ? ": " : "", opened->no_dnn,
           f->memory_free >> 20, f->memory >> 20);
    atexit(test_device_last_word);
}

static inline bool test_device_is_strict(void) { return !device || device->strict; }

/* Does not return without a device: status 77 says skipped, and the line why. */
static inline struct device *test_device_open(void)
{
    const char *name = getenv("GANTRY_TEST_DEVICE");
    bool reordered = !name && getenv("GANTRY_EMULATED_REORDERED");
    struct device *opened = NULL, *own = NULL;
    struct error error = {0};
    int r;

    if (!name && getenv("GANTRY_EMULATED_APART"))
        emulate_apart();
    if (reordered)
        emulate_reordered_fp32(test_device_is_strict);
    r = name ? device_open(name, &opened, &error)
             : device_wrap(reordered ? emulated_reordered() : emulated_kernels(), 0, &opened, &error);

    if (r >= 0 && opened && name)
        test_device_tell(opened);
    if (r >= 0 && opened && name && getenv("GANTRY_TEST_OWN")) {
        r = device_wrap(opened->k, opened->ordinal, &own, &error);
        device_unref(opened);
        opened = own;
    }
    if (r < 0 || !opened) {
        printf("skipped: %s\n", r < 0 ? error.text : "GANTRY_TEST_DEVICE names no device");
        exit(77);
    }
    return opened;
}

static inline int test_device_setup(void **state)
{
    (void)state;
    device = test_device_open();
    return 0;
}

static inline int test_device_teardown(void **state)
{
    (void)state;
    device = device_unref(device);
    return 0;
}
