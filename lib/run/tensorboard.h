/* tensorboard.h - scalar curves as a TensorBoard event file, without TensorFlow.
 *
 * TFRecord framing (length, masked CRC32C, payload, masked CRC32C) around Event protobufs packed by hand: wall_time, step,
 * summary.value {tag, simple_value}. (github.com/tensorflow/tensorboard, compat/proto/event.proto.)
 * An event file is for people: it may be lost and is rebuilt from the ledger's scalars; it is flushed, never fsynced.
 *   tensorboard_open -> tensorboard_scalar* -> tensorboard_close.   Thread rule: one thread. Failure rule: -errno. */
#pragma once

#include "base/macro.h"

struct tensorboard;

/* A new file DIR/events.out.tfevents.<seconds>.<host>. */
int tensorboard_open(const char *dir, struct tensorboard **ret);
int tensorboard_scalar(struct tensorboard *tb, uint64_t wall_ms, int64_t step, const char *tag, float value);
int tensorboard_flush(struct tensorboard *tb);
struct tensorboard *tensorboard_close(struct tensorboard *tb);
DEFINE_FREEP(struct tensorboard, tensorboard_close)
