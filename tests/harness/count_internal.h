/* count_internal.h - what the two files of the counting device share: count_device.c is the machine, count_kernels.c what runs on
 * it. */
#pragma once

#include "tests/harness/count_device.h"

/* So many kernels, which move `bytes` and do `flops` together. 0, as a table's entries answer. */
int count_launch(enum count_kind kind, unsigned long long launches, double bytes, double flops);
/* A table with the machine's entries: memory, streams, graphs, events. */
struct device_kernels count_machine(void);
