/* kinds.h - one row per kind of message: its name, its body's type, its limits, whether it may be repeated. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/control.pb-c.h"
#include "proto/envelope.pb-c.h"

#define WIRE_KIND(x) GANTRY__KIND__KIND_##x         /* WIRE_KIND(ACT) */
#define WIRE_STATUS(x) GANTRY__STATUS__STATUS_##x   /* WIRE_STATUS(LOADING) */

struct wire_kind {
    uint32_t kind;                      /* Gantry__Kind */
    const char *name;                   /* "hello" */
    const ProtobufCMessageDescriptor *body;     /* NULL: the body is empty */
    uint32_t body_max;                  /* bytes of frame 1 */
    uint32_t part_max;                  /* bytes of each of frames 2.. */
    uint16_t parts_max;                 /* how many of those */
    bool idempotent;                    /* a request that a client repeats by itself within its deadline */
    bool before_welcome;                /* taken from senders of any epoch (0 included) */
    uint16_t senders;                   /* 1 << Gantry__Role of whose keys may send it (on ipc: anyone) */
};

/* NULL: no such kind. */
const struct wire_kind *wire_kind(uint32_t kind);
const char *wire_kind_name(uint32_t kind);          /* "unknown" if there is none */

int wire_status_errno(uint32_t status);             /* negative, client.h lists them; 0 for STATUS_OK */
const char *wire_role_name(uint32_t role);          /* "env_worker" */
int wire_role_parse(const char *name, Gantry__Role *ret);   /* -EINVAL */
