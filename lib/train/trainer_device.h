/* trainer_device.h - a trainer's optimiser in its device's memory: moments, fp32 masters, the gradient's norm and the clip.
 *
 * Nothing of the size of the parameters crosses to the host in an update: of each part's gradient one number comes, its norm.
 * AdamW runs on the device's fp32 values (nn/device/mirror.h; with trainer_use_bf16 on masters beside them), by the CPU's order
 * of operations: the same gradient and the same factor give the same bits. The norm is summed in another order than the host's
 * (in double, in a fixed tree), so that a clipped update may differ from the CPU's in the last bit of its factor.
 * Thread rule: the trainer's. Used by trainer.c alone. */
#pragma once

#include "train/trainer.h"

struct trainer_device;

/* Allocates moments, and sends them with the first update. -ENOMEM. */
int trainer_device_new(const struct trainer *trainer, struct trainer_device **ret);
struct trainer_device *trainer_device_free(struct trainer_device *there);       /* NULL is fine; returns NULL */
/* trainer_update there, from the gradient to the packed values. ranges[n]: those of all `parts`, ascending. */
int trainer_device_update(struct trainer_device *there, struct trainer *trainer, const struct adamw_range *ranges, int n,
                          const enum trainer_part *parts, const struct update *update, int n_parts, int samples, shard_fn *fn,
                          void *arg, double *ret_norm);
/* trainer_fetch: what has moved there, into the trainer's values, moments and masters. */
int trainer_device_fetch(struct trainer_device *there, struct trainer *trainer);
/* The host's moments, or masters, are newer: sent before the next update, and not fetched. NULL is fine. */
void trainer_device_renew(struct trainer_device *there, bool moments, bool masters);
/* Bytes of device memory beside the values: moments of `trained` numbers, masters and their rounded copy. */
size_t trainer_device_bytes(int64_t trained, bool masters);

/* trainer.c: sets the part's AdamW; returns the gradient's factor. */
float trainer_set_update(struct trainer *trainer, struct part *part, const struct update *update, double norm, double *ret_decay);
