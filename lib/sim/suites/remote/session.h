/* session.h - one simulator that is not ours: its process or its socket, and one question at a time.
 *
 *   session_open("python3 my_sim.py" or "unix:PATH", 0, &session, &error) -> session_describe -> session_ask -> ...
 *   -> session_close
 *
 * A question waits for its answer. After a failure other than -EREMOTEIO (the simulator says itself what is wrong, and lives on)
 * the stream is out of step: the session is dead, its process killed with all that it has started, and every further question is
 * -EPIPE. One thread at a time; a session belongs to the process that opened it (session_is_ours), not to its forks. The
 * simulator's process is killed when the thread that opened the session ends: close it before. */
#pragma once

#include <sys/types.h>

#include "sim/suites/remote/frame.h"
#include "sim/suites/remote/reply.h"

struct session {
    int fd;                     /* -1: dead */
    pid_t child;                /* 0: somebody else's, behind a socket */
    pid_t owner;
    struct frame answer;        /* of the last question */
    struct session *next;       /* the owner's, to keep several in a list */
};

/* patience: seconds that a socket may take to have somebody who listens there; a robot's program that is started anew. */
int session_open(const char *where, unsigned patience, struct session **ret, struct error *error);
/* Says goodbye; a process that is still there after two seconds is killed. */
struct session *session_close(struct session *session);
bool session_is_alive(const struct session *session);
bool session_is_ours(const struct session *session);

/* *ret is undefined after a failure. */
int session_describe(struct session *session, struct remote_description *ret, struct error *error);

/* One request and its answer, which is then in session->answer. `seconds` is how long it may take, body_max how much may come. */
int session_ask(struct session *session, const char *head, size_t head_n, const void *body, size_t body_n, unsigned seconds,
                size_t body_max, struct error *error);
/* The answer that came makes no sense: the session is dead from here on. Returns `r`. */
int session_give_up(struct session *session, int r);
