#include "tests/harness/gather_desk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void gather_desk_reset(struct gather_desk *desk, int ranks)
{
    desk->ranks = ranks;
    desk->here = 0;
    desk->round = 0;
}

void gather_desk_release(struct gather_desk *desk)
{
    for (int i = 0; i < 2; i++) {
        free(desk->bytes[i]);
        desk->bytes[i] = NULL;
        desk->size[i] = 0;
    }
}

/* Room for what all bring to this round. Under the lock; nobody reads here any more: those of two rounds ago have left. */
static char *room(struct gather_desk *desk, size_t bytes)
{
    unsigned which = desk->round % 2;

    if (desk->size[which] < bytes) {
        free(desk->bytes[which]);
        desk->bytes[which] = malloc(bytes);
        desk->size[which] = desk->bytes[which] ? bytes : 0;
    }
    return desk->bytes[which];
}

int gather_desk(struct gather_desk *desk, int rank, const void *mine, size_t bytes, void *ret_all)
{
    unsigned round;
    char *all;
    int r;

    pthread_mutex_lock(&desk->lock);
    round = desk->round;
    all = room(desk, (size_t)desk->ranks * bytes);
    if (!all)
        abort();
    memcpy(all + (size_t)rank * bytes, mine, bytes);
    if (++desk->here == desk->ranks) {
        desk->here = 0;
        desk->round++;
        pthread_cond_broadcast(&desk->changed);
    }
    while (desk->round == round)
        pthread_cond_wait(&desk->changed, &desk->lock);
    memcpy(ret_all, all, (size_t)desk->ranks * bytes);
    r = desk->fail_at && round + 1 == (unsigned)desk->fail_at ? -ECONNRESET : 0;
    pthread_mutex_unlock(&desk->lock);
    return r;
}
