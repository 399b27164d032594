#include "wire/wire.h"

#include <errno.h>
#include <zmq.h>

#include "base/fault.h"
#include "wire/security.h"

int wire_new(uv_loop_t *loop, Gantry__Role role, struct wire **ret)
{
    struct wire *wire = malloc(sizeof *wire);
    void *zmq = zmq_ctx_new();

    if (!wire || !zmq) {
        int r = zmq ? -ENOMEM : -errno;

        free(wire);
        if (zmq)
            zmq_ctx_term(zmq);
        return r;
    }
    *wire = (struct wire) {.loop = loop, .zmq = zmq, .role = role};
    *ret = wire;
    return 0;
}

struct wire *wire_free(struct wire *wire)
{
    if (!wire)
        return NULL;
    security_free(wire->security);
    while (zmq_ctx_term(wire->zmq) && errno == EINTR)
        ;
    free(wire);
    return NULL;
}

bool wire_loses(uint32_t kind, const char *where)
{
    char name[48];

    if (!fault_armed())
        return false;
    snprintf(name, sizeof name, "%s.%s", wire_kind_name(kind), where);
    return fault_point(name) == FAULT_DROP;
}

void wire_set_run(struct wire *wire, uint64_t run, uint64_t epoch)
{
    wire->run = run;
    wire->epoch = epoch;
}
