/* test_device.h - the device that device tests use: the emulated one, or, with GANTRY_TEST_DEVICE=cuda:0, a real one. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "nn/device/device.h"
#include "tests/emulate/emulate.h"

/* Does not return without a device: status 77 says skipped, and the line why. */
static inline struct device *test_device_open(void)
{
    const char *name = getenv("GANTRY_TEST_DEVICE");
    struct device *device = NULL;
    struct error error = {0};
    int r = name ? device_open(name, &device, &error) : device_wrap(emulated_kernels(), 0, &device, &error);

    if (r < 0 || !device) {
        printf("skipped: %s\n", r < 0 ? error.text : "GANTRY_TEST_DEVICE names no device");
        exit(77);
    }
    return device;
}
