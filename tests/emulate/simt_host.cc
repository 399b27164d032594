/* simt_host.cc - blocks of fibers. Contexts are made once by ucontext and then switched by _setjmp/_longjmp (no system call). */
#undef _FORTIFY_SOURCE
#include "tests/emulate/simt_host.h"

#include <setjmp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "tests/emulate/emulate.h"

enum { MOST = 1024, STACK = 128 << 10, MOST_SHARED = 48 << 10 }; /* shared memory without asking for more */

#ifdef __FMA__
/* Before anything of a program that has an emulated device: its kernels were compiled for such a CPU. */
__attribute__((constructor)) static void wants_fma(void)
{
    if (__builtin_cpu_supports("fma"))
        return;
    printf("skipped: the emulated device wants a CPU with FMA\n");
    exit(77);
}
#endif

enum fiber_state { READY, AT_BARRIER, AT_WARP, DONE };

struct fiber {
    jmp_buf at;
    enum fiber_state state;
    simt_index index;
    unsigned number;
    bool made;
    unsigned exchanges;
    char *stack;
};

struct machine {
    struct fiber fibers[MOST];
    jmp_buf scheduler;
    struct fiber *running;
    simt_thread *thread;
    void *arg;
    unsigned threads, waiting, waiting_warp[MOST / 32], order[MOST];
    uint32_t exchanged[2][MOST]; /* in turn: whoever is at the next exchange need not wait for those who still read */
    char *shared;
};

thread_local simt_index threadIdx, blockIdx;
thread_local dim3 blockDim, gridDim;
thread_local char *simt_shared;
thread_local int simt_result;
static thread_local struct machine *machine;
static thread_local struct fiber *starting;
static thread_local struct machine_end { /* of the thread */
    bool is_due;
    ~machine_end()
    {
        for (unsigned i = 0; is_due && i < MOST; i++)
            if (machine->fibers[i].made)
                munmap(machine->fibers[i].stack, STACK);
        free(is_due ? machine : NULL);
    }
} at_end;
static uint64_t order_seed;

static bool only_corners;

void emulate_order(uint64_t seed) { order_seed = seed; }
void simt_corners(bool yes) { only_corners = yes; }

static void die(const char *what)
{
    fprintf(stderr, "emulated device: %s (block %u %u %u, thread %u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x);
    abort();
}

void simt_poison(void *memory, size_t bytes) { memset(memory, 0xff, bytes); }

static void to_scheduler(struct fiber *f)
{
    if (_setjmp(f->at) == 0)
        _longjmp(machine->scheduler, 1);
    threadIdx = f->index;
}

/* A fiber's whole life: wait for work, do it, wait again. */
static void fiber_main(void)
{
    struct fiber *f = starting;

    if (_setjmp(f->at) == 0)
        _longjmp(machine->scheduler, 1);
    for (;;) {
        threadIdx = f->index;
        machine->thread(machine->arg);
        f->state = DONE;
        if (_setjmp(f->at) == 0)
            _longjmp(machine->scheduler, 1);
    }
}

static void make(struct fiber *f)
{
    ucontext_t context;

    f->stack = (char *)mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f->stack == MAP_FAILED)
        die("no memory for a stack");
    getcontext(&context);
    context.uc_stack.ss_sp = f->stack;
    context.uc_stack.ss_size = STACK;
    context.uc_link = NULL;
    makecontext(&context, fiber_main, 0);
    starting = f;
    if (_setjmp(machine->scheduler) == 0)
        setcontext(&context);
    f->made = true;
}

static void run(struct fiber *f)
{
    machine->running = f;
    if (_setjmp(machine->scheduler) == 0)
        _longjmp(f->at, 1);
    machine->running = NULL;
}

void __syncthreads(void)
{
    struct machine *m = machine;
    struct fiber *f = m->running;

    if (++m->waiting < m->threads) {
        f->state = AT_BARRIER;
        to_scheduler(f);
        return;
    }
    m->waiting = 0;
    for (unsigned i = 0; i < m->threads; i++) {
        if (m->fibers[i].state == DONE)
            die("a thread has left before a barrier");
        if (&m->fibers[i] != f && m->fibers[i].state != AT_BARRIER)
            die("a thread is elsewhere at a barrier");
        m->fibers[i].state = READY;
    }
    to_scheduler(f); /* the last to come need not be the first to go on */
}

unsigned simt_lane(void) { return machine->running->number % 32; }

void __syncwarp(unsigned mask)
{
    struct machine *m = machine;
    struct fiber *f = m->running;
    unsigned first = f->number / 32 * 32, end = first + 32 < m->threads ? first + 32 : m->threads;

    if (mask != 0xffffffffu)
        die("only whole warps are known");
    if (++m->waiting_warp[first / 32] < end - first) {
        f->state = AT_WARP;
        to_scheduler(f);
        return;
    }
    m->waiting_warp[first / 32] = 0;
    for (unsigned i = first; i < end; i++) {
        if (&m->fibers[i] != f && m->fibers[i].state != AT_WARP)
            die("a lane is elsewhere at a warp's barrier");
        m->fibers[i].state = READY;
    }
}

uint32_t simt_exchange(uint32_t value, int from_lane)
{
    struct machine *m = machine;
    unsigned number = m->running->number, from = number / 32 * 32 + (unsigned)from_lane, turn = m->running->exchanges++ % 2;

    if (from_lane < 0 || from_lane > 31 || from >= m->threads)
        die("a shuffle from a lane that is not there");
    m->exchanged[turn][number] = value;
    __syncwarp();
    return m->exchanged[turn][from];
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static void run_block(uint64_t *random)
{
    struct machine *m = machine;
    unsigned left = m->threads;

    m->waiting = 0;
    memset(m->waiting_warp, 0, sizeof(m->waiting_warp));
    for (unsigned i = 0; i < m->threads; i++) {
        m->fibers[i].state = READY;
        m->fibers[i].exchanges = 0;
        m->order[i] = i;
    }
    while (left) {
        unsigned ran = 0;

        for (unsigned i = m->threads - 1; i > 0 && order_seed; i--) {
            unsigned j = next_random(random) % (i + 1), swap = m->order[i];

            m->order[i] = m->order[j];
            m->order[j] = swap;
        }
        for (unsigned i = 0; i < m->threads; i++) {
            struct fiber *f = &m->fibers[m->order[i]];

            if (f->state != READY)
                continue;
            run(f);
            ran++;
            left -= f->state == DONE;
        }
        if (!ran)
            die("threads wait for one another");
    }
}

/* The block after this one; with only_corners the last follows the first. */
static unsigned next_of(unsigned at, unsigned n) { return only_corners && at + 1 < n ? n - 1 : at + 1; }

int simt_check(dim3 grid, dim3 block, size_t shared)
{
    bool fits = block.x && block.x <= MOST && block.y == 1 && block.z == 1 && grid.x && grid.y && grid.z &&
                grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535 && shared <= MOST_SHARED;

    simt_owned();
    return fits ? 0 : -EINVAL;
}

int simt_launch(dim3 grid, dim3 block, size_t shared, simt_thread *thread, void *arg)
{
    struct machine *m = machine;
    simt_inside inside;
    uint64_t random = order_seed;
    unsigned threads = block.x;

    if (simt_gone() < 0)
        return -EIO;
    if (!m)
        m = machine = (struct machine *)calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    at_end.is_due = true;
    m->threads = threads;
    m->thread = thread;
    m->arg = arg;
    gridDim = grid;
    blockDim = block;
    for (unsigned i = 0; i < threads; i++) {
        if (!m->fibers[i].made)
            make(&m->fibers[i]);
        m->fibers[i].number = i;
        m->fibers[i].index = {i, 0, 0};
    }
    simt_shared = (char *)aligned_alloc(16, (shared + 15) / 16 * 16 + 16);
    if (!simt_shared)
        return -ENOMEM;
    for (unsigned z = 0; z < grid.z; z = next_of(z, grid.z))
        for (unsigned y = 0; y < grid.y; y = next_of(y, grid.y))
            for (unsigned x = 0; x < grid.x; x = next_of(x, grid.x)) {
                blockIdx = {x, y, z};
                simt_poison(simt_shared, shared);
                run_block(&random);
            }
    free(simt_shared);
    simt_shared = NULL;
    return 0;
}
