/* requests.h - what a slot asks of the servers, in wire terms: Act, Score, Deliver, LeaseReturn; and what the answers are worth.
 *
 * Each function sends one request whose end comes to on_reply, exactly once unless cancelled. An answer is believed only
 * as far as it was checked here: sizes, finite numbers, the version asked for. Thread rule: the loop's thread. */
#pragma once

#include "env_worker/episode.h"
#include "env_worker/player.h"
#include "proto/policy.pb-c.h"
#include "proto/prm.pb-c.h"
#include "sim/sim.h"
#include "wire/client.h"

/* Of Act and Score where the server is as quick as most (servers_patience). */
enum { ACT_DEADLINE_MS = 15000, SCORE_DEADLINE_MS = 30000, DELIVER_DEADLINE_MS = 30000, RETURN_DEADLINE_MS = 30000 };

/* One action as an actor chose it. */
struct move {
    uint32_t n_tokens;
    uint32_t tokens[EPISODE_TOKENS_MAX];
    float logp[EPISODE_TOKENS_MAX];
    float value, confidence;    /* confidence: 0 unless asked for */
    float action[SIM_ACTION_MAX];       /* the episode's action_dims of them */
    uint64_t version;
    bool begins_turn;           /* the first action of an answer */
};

struct pending_call {           /* an open request */
    struct wire_client *client; /* NULL: none */
    uint64_t id;                /* for wire_cancel */
    uint64_t since_ms;          /* monotonic: sent */
};
void pending_cancel(struct pending_call *call);

struct act_ways {               /* the same for all requests of a run */
    const char *chain;          /* how pictures are made */
    bool full;                  /* sample from the whole vocabulary */
    bool ended;                 /* and a token more, behind the action's */
};
/* Act on one observation; `step` and `sample` are the sampling counter, with the lease's sample_key or episode. */
struct act_ask {
    float temperature;
    uint32_t step, sample;
    struct frames *frames;
    uint32_t frame, row;        /* of the block: pictures, state */
    bool value_only, confidence;
    uint32_t deadline_ms;
};
int request_act(struct wire_client *client, const struct episode *episode, const struct act_ways *ways, const struct act_ask *ask,
                wire_reply_fn *on_reply, void *arg, struct pending_call *ret_call);
/* How many actions an answer holds, to make room for them: 1..ACT_CHUNK_MAX, whatever it says. */
enum { ACT_CHUNK_MAX = 64 };
uint32_t act_chunk(int result, const struct message *reply);
/* BAD_ANSWER with a line in text when the reply cannot be played, or holds more than `room` actions. */
enum player_answer act_answer(int result, const struct message *reply, const struct episode *episode, struct move *ret_moves,
                              uint32_t room, char *text, size_t size);

/* The same for an answer to value_only. */
enum player_answer value_answer(int result, const struct message *reply, const struct episode *episode, float *ret_value,
                                char *text, size_t size);

/* Score frames at[0..n_at) of `n` frames of a block from `first` on, which is the episode's o_0 or a copy of it. */
struct score_images {
    struct frames *frames; uint32_t first, n; const uint32_t *at; uint32_t n_at;
    const uint32_t *step;       /* [n] which frames of the episode they are; NULL: o_0, o_1, ... */
    const float *action;        /* (n-1, action_dims) executed after each but the last; NULL: not told */
    bool whole;                 /* the episode has ended and these are its frames */
    uint32_t deadline_ms;
};
int request_score(struct wire_client *client, const struct episode *episode, const struct score_images *images,
                  wire_reply_fn *on_reply, void *arg, struct pending_call *ret_call);
/* ret_scores has room for n. */
enum player_answer score_answer(int result, const struct message *reply, const struct episode *episode, float *ret_scores,
                                uint32_t n, char *text, size_t size);

/* With the first n_frames of the block. */
int request_deliver(struct wire_client *client, const Gantry__Trajectory *trajectory, struct frames *frames, uint32_t n_frames,
                    wire_reply_fn *on_reply, void *arg, struct pending_call *ret_call);

/* Give a lease back; nobody waits for the answer. */
void request_return(struct wire_client *client, uint32_t member, uint64_t episode, uint64_t fence, enum lease_return reason,
                    const char *text);

/* What a call's result means to the player; text gets the server's reason. */
enum player_answer player_answer_of(int result, const struct message *reply, char *text, size_t size);
