/* device_grid.h - every op on a device against the CPU, over odd shapes: results, gradients of inputs, gradients of parameters.
 *
 * Used with an emulated device by tests/nn/test_device.c and with a real one by `make gpu-check`. */
#pragma once

#include "nn/device/device.h"

struct grid_result {
    const char *op, *what;      /* what: y, dx0, dw0, ... */
    int shape;
    bool half;
    double error, limit;        /* |device - cpu| / |cpu| in the 2-norm */
    int64_t n, at;              /* numbers; the one that differs most (or is none), and what it is there and here */
    float got, want;
};

int device_grid_cases(void);
const char *device_grid_name(int number);
enum { GRID_SHAPES = 3 };
/* One op at one shape; told: one line per array. 0, or -errno when the op itself failed. */
int device_grid_run(struct device *device, int number, int shape, bool half, void (*told)(const struct grid_result *r, void *arg),
                    void *arg);
