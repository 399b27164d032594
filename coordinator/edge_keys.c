/* edge_keys.c - the keys of members on other hosts: our own, who is let in, telling servers elsewhere, dropping the revoked. */
#include <sys/stat.h>

#include "base/atomic_file.h"
#include "coordinator/edge.h"
#include "wire/security.h"

int edge_keys_start(struct edge *edge, struct error *error)
{
    char keys[RUN_PATH], secret[RUN_PATH], allowed[RUN_PATH], public[SECURITY_KEY_SIZE];
    int r = rundir_path(edge->run_dir, "keys", keys, error);

    if (r == 0)
        r = rundir_path(edge->run_dir, "keys/coordinator.key", secret, error);
    if (r == 0)
        r = rundir_path(edge->run_dir, "keys/allowed", allowed, error);
    if (r == 0 && (r = mkdir_p(keys, 0700)) < 0)
        r = error_set(error, -r, "%s: cannot be made: %s", keys, strerror(-r));
    if (r == 0 && access(secret, F_OK) < 0)
        r = security_key_create(keys, "coordinator", public, error);
    return r < 0 ? r : security_start(edge->wire, secret, allowed, error);
}

void edge_keys_tick(struct edge *edge)
{
    uint64_t digest = edge->tcp ? security_list_digest(edge->wire->security) : 0;
    const struct membership *members = conductor_members(edge->conductor);

    if (digest == edge->keys_digest || edge->stepping)
        return;
    for (size_t i = 0; i < members->n && !edge->stepping; i++) {
        const struct member *m = &members->items[i];
        struct conductor_event event = {
            .kind = CONDUCTOR_EXIT, .member = m->id, .exit = {.shut_out = true, .text = "its key was revoked"}};
        Gantry__Role role;

        if (m->state != MEMBER_GONE && m->user[0] && security_role_of(edge->wire->security, m->user, &role) < 0)
            edge_step(edge, &event);
    }
    if (!edge->stepping)            /* else there was no room to note one: the others when there is */
        edge->keys_digest = digest;
}

void edge_allowed_release(struct edge_allowed *a)
{
    free(a->keys);
    free(a->pointers);
}

Gantry__Allowed *edge_list_allowed(struct edge *edge, uint64_t known, struct edge_allowed *a)
{
    uint64_t digest = edge->tcp ? security_list_digest(edge->wire->security) : 0;
    const struct security_entry *entries;
    size_t n;

    if (!digest || digest == known)
        return NULL;
    entries = security_current(edge->wire->security, &n);
    a->keys = calloc(n + 1, sizeof *a->keys);
    a->pointers = calloc(n + 1, sizeof(void *));
    if (!a->keys || !a->pointers)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        gantry__allowed__key__init(&a->keys[i]);
        a->keys[i].role = entries[i].role;
        a->keys[i].key = (char *)entries[i].key;
        a->pointers[i] = &a->keys[i];
    }
    gantry__allowed__init(&a->message);
    a->message.digest = digest;
    a->message.keys = a->pointers;
    a->message.n_keys = n;
    return &a->message;
}
