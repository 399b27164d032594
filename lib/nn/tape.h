/* tape.h - one forward pass, recorded so that it can be run backwards.
 *
 * A model is written once against ops.h. Each op computes its output at once and, when the tape is made
 * for training, leaves a record; tape_backward() replays the records in reverse. Activations, their
 * gradients and the records live in one arena. Sizes are found by a dry run:
 *
 *   tape_plan(&tape)            ops compute shapes and sizes only, no numbers
 *   ... run the model ...
 *   tape_allocate(&tape)        one allocation of what the run asked for
 *   tape_begin(&tape)           forget the last pass, memory stays; then run the model for real
 *   tape_backward(&tape)        after the loss ops (or the caller) have written output gradients
 *
 * A run that needs more than was allocated fails cleanly: ops return NULL and tape->error is -ENOBUFS
 * (ops accept NULL inputs and pass NULL on, so a model checks once at its end); tape_reserve() then grows.
 * Gradients: activations are assigned (=) on first use and added (+=) after that; parameter gradients are
 * always added (+=) into tape->param_grad, laid out like params->values. One tape = one thread; parallelism
 * is several tapes over parts of a batch. Results never depend on the batch a row travels in.
 *
 * On a device (tape_attach; docs/adr/0004-devices.md) numbers lie in its memory and are fp32 or, with `half`, bf16 where they are
 * activations; x and g are then device addresses, which only ops look into. tape_alloc's memory is the host's always. */
#pragma once

#include "base/arena.h"
#include "nn/param.h"

struct tensor {
    float *x;                   /* (rows, cols), row-major, 64-byte aligned rows not promised; on a device: see above */
    float *g;                   /* gradient of the loss, same shape; NULL in inference or when not wanted (see also recycle) */
    int64_t rows, cols;
    bool wants;                 /* a gradient is wanted */
};

enum { TAPE_SMALL = 4096, TAPE_SPARES = 64 };

struct tape_record;
struct tape_block;
struct tape_chunk;
struct rope_table;
struct tape_watch;
struct device_stream;

struct tape {
    struct arena arena;
    struct tape_record *last;   /* newest record; linked backwards */
    float *param_grad;          /* borrowed: flat, like params->values; NULL in inference */
    bool training;              /* leave records */
    bool plain;                 /* linear ops leave their adapters out: the base alone (a reference from the same weights) */
    bool recompute;             /* tape_block keeps only what a block gives, and runs it again on the way back */
    bool planning;              /* sizes only */
    bool recycle;               /* training in earnest: gradients of more than TAPE_SMALL floats get memory when first written and
                                 * give it back once used, so that the backward stays in the caches. Off: all can be read
                                 * afterwards. */
    struct { float *memory; int64_t count; } spare[TAPE_SPARES]; int spares;
    size_t planned;             /* bytes asked for in the dry run */
    size_t scratch;             /* the largest scratch an op asked for in the dry run */
    size_t block;               /* the most bytes that the backward of a recomputed block takes, found in the dry run */
    size_t peak;                /* the most bytes held at once in the dry run (tape_keep gives some back) */
    struct tape_block *blocks;  /* small things of the dry run */
    struct rope_table *rope;    /* cos and sin by position; grows to the longest sequence met, kept between passes */
    struct tape_watch *watch;   /* borrowed: who is told in the backward when a parameter's gradient is whole (nn/tape_watch.h);
                                 * NULL */
    struct device_stream *on;   /* NULL: this CPU. Owned */
    bool half;                  /* on a device: activations and their gradients are bf16 */
    struct arena numbers;       /* on a device: its memory; `arena` is not used then */
    struct tape_chunk *chunks, *chunk;      /* on a device: what tape_alloc gives; kept between passes */
    int error;                  /* 0 or the first -errno of this pass */
};

void tape_init(struct tape *tape, bool training);       /* no memory yet; training: leave records */
void tape_release(struct tape *tape);
void tape_plan(struct tape *tape);
int tape_allocate(struct tape *tape);
int tape_reserve(struct tape *tape, size_t bytes);      /* at least this much; forgets the pass */
void tape_begin(struct tape *tape);
void tape_backward(struct tape *tape);
/* One pass on the memory that is there; when it does not fit, a dry run finds the size and it runs again. `pass` puts everything
 * the caller wants on the tape and returns tape->error when the tape failed. */
int tape_run(struct tape *tape, int (*pass)(struct tape *tape, void *arg), void *arg);

/* The tape computes where the parameters are (params.device, params.device_half); it forgets its pass when that has changed. To
 * be called before a pass; cheap when nothing has changed. -ENODEV, -ENOMEM, -EIO. */
int tape_attach(struct tape *tape, const struct params *params);
size_t tape_room(const struct tape *tape);              /* bytes of numbers that it has memory for */
/* What a pass made, on the host in fp32: x->x itself on the CPU, else a copy in tape memory (waits). NULL: tape->error. In a dry
 * run on a device zeros, so that a loss can go through it to its end. */
const float *tape_values(struct tape *tape, const struct tensor *x);
/* The gradient of a result, written by hand (=): numbers (rows, cols) of the host. */
int tape_set_gradient(struct tape *tape, struct tensor *x, const float *g);
/* `count` fp32 numbers (statistics, not activations) to the host: the same array on the CPU, else a copy in tape memory. */
const float *tape_read(struct tape *tape, const float *numbers, int64_t count);
/* fp32 numbers of the host where ops can read them: themselves on the CPU. NULL stays NULL. For the pass. */
const float *tape_send(struct tape *tape, const float *numbers, int64_t count);
/* For models: big arrays that the host itself fills. As tape_numbers on the CPU. */
float *tape_host_numbers(struct tape *tape, int64_t count);

/* For ops and models: memory of this pass (not cleared; NULL with tape->error set when it does not fit). Real memory in a dry
 * run too: for indices and contexts. */
void *tape_alloc(struct tape *tape, size_t bytes);
/* For ops: big arrays of numbers of this pass. In a dry run counted, and NULL. */
float *tape_numbers(struct tape *tape, int64_t count);
/* The same for activations: fewer bytes each when they are bf16. */
float *tape_activations(struct tape *tape, int64_t count);
void tape_zero(struct tape *tape, void *numbers, size_t bytes);
size_t tape_element(const struct tape *tape);           /* bytes of an activation */
/* For ops: memory until the op returns, overwritten by what is allocated next. In a dry run counted, and NULL: an op asks in its
 * forward also for what its backward will need. */
float *tape_scratch(struct tape *tape, int64_t count);
/* A new activation; its gradient buffer is there, zeroed, when training (a large one's not with `recycle`: whoever writes it by
 * hand calls tape_gradient). In a dry run x is NULL. */
struct tensor *tape_tensor(struct tape *tape, int64_t rows, int64_t cols);
/* In inference, activations die young: x = tape_keep(tape, mark, x) forgets everything since mark = tape_mark(tape) but x, and
 * moves that down; the caches stay warm. In training nothing is forgotten and x itself comes back. */
size_t tape_mark(const struct tape *tape);
struct tensor *tape_keep(struct tape *tape, size_t mark, struct tensor *x);
/* tape_keep of what a block made of `before`, its input: x may be that itself, written anew (op_add_to). */
struct tensor *tape_keep_block(struct tape *tape, size_t mark, const struct tensor *before, struct tensor *x);
/* In inference: everything since mark is forgotten; what is still wanted lies below it. In training nothing is. */
void tape_forget(struct tape *tape, size_t mark);
/* A constant input: borrowed numbers, no gradient. */
struct tensor *tape_input(struct tape *tape, const float *x, int64_t rows, int64_t cols);
/* x's gradient, zeroed when it is asked for the first time. For ops: before tape_scratch. NULL with tape->error set: no room. */
float *tape_gradient(struct tape *tape, struct tensor *x);
/* The same, not zeroed: *ret_first tells the caller to assign instead of adding. */
float *tape_gradient_first(struct tape *tape, struct tensor *x, bool *ret_first);
/* Remember how to go back: `context` (tape memory) is handed to `backward`. y: what was made, whose gradient is used up by that;
 * NULL when it was made in place or is no tensor. No-op in inference. */
void tape_record(struct tape *tape, struct tensor *y, void (*backward)(struct tape *tape, void *context), void *context);
/* A piece of a model that may be computed twice (activation checkpointing): y = block(tape, x, arg), a function of x alone beside
 * what arg points to, which must last as long as the pass. With `recompute`, in training, only y is kept; the backward runs the
 * block once more, now with records, and forgets it again, so that a pass holds the activations of one block at a time. Gradients
 * are the same to the bit. Whatever else the block leaves on the tape is gone after it. arg is copied (arg_bytes). */
typedef struct tensor *tape_block_fn(struct tape *tape, struct tensor *x, const void *arg);
struct tensor *tape_block(struct tape *tape, struct tensor *x, tape_block_fn *block, const void *arg, size_t arg_bytes);
