/* machine.cu - devices, memory, streams, graphs: the CUDA runtime behind the table. Not compiled for the emulated device. */
#include <cstdio>

#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"

static thread_local cudaError_t last = cudaSuccess;

static int as_errno(cudaError_t e)
{
    if (e == cudaSuccess)
        return 0;
    last = e;
    (void)cudaGetLastError(); /* what is not sticky is told once */
    switch (e) {
    case cudaErrorMemoryAllocation: return -ENOMEM;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorDevicesUnavailable: return -ENODEV;
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated: return -ENOTSUP;
    default: return -EIO;
    }
}

/* Taken, not only looked at: a launch that was refused (a grid too large) says nothing of those after it. What has spoilt the
 * context comes again. */
extern "C" int NAME(launched)(void) { return as_errno(cudaGetLastError()); }

static const char *last_error(void)
{
    cudaError_t e = cudaPeekAtLastError();

    return cudaGetErrorString(e != cudaSuccess ? e : last);
}

static int devices(void)
{
    int n = 0;

    return as_errno(cudaGetDeviceCount(&n)) == 0 ? n : 0;
}

static int use(int ordinal, struct device_facts *facts, char *why, size_t why_size)
{
    cudaDeviceProp p;
    int n = 0, driver = 0, runtime = 0, clock = 0, width = 0, r = as_errno(cudaGetDeviceCount(&n));

    if (r < 0 && last == cudaErrorInsufficientDriver) {
        (void)cudaDriverGetVersion(&driver);
        (void)cudaRuntimeGetVersion(&runtime);
        if (driver)
            snprintf(why, why_size, "the driver knows CUDA %d.%d, this build needs %d.%d: update the driver", driver / 1000,
                     driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
        else
            snprintf(why, why_size, "no NVIDIA driver is installed, or it is not loaded (nvidia-smi tells)");
        return r;
    }
    if (r < 0 || n == 0) {
        snprintf(why, why_size, "no CUDA device: %s", n == 0 && r == 0 ? "the driver sees none" : cudaGetErrorString(last));
        return -ENODEV;
    }
    if (ordinal >= n) {
        snprintf(why, why_size, "there are %d device%s, numbered from 0", n, n == 1 ? "" : "s");
        return -ENODEV;
    }
    r = as_errno(cudaSetDevice(ordinal));
    if (r == 0 && facts)
        r = as_errno(cudaGetDeviceProperties(&p, ordinal));
    if (r < 0) {
        snprintf(why, why_size, "%s", cudaGetErrorString(last));
        return r;
    }
    if (!facts)
        return 0;
    (void)cudaDeviceGetAttribute(&clock, cudaDevAttrMemoryClockRate, ordinal);
    (void)cudaDeviceGetAttribute(&width, cudaDevAttrGlobalMemoryBusWidth, ordinal);
    memset(facts, 0, sizeof(*facts));
    snprintf(facts->name, sizeof(facts->name), "%.79s", p.name);
    facts->major = p.major;
    facts->minor = p.minor;
    facts->processors = p.multiProcessorCount;
    facts->bandwidth = 2.0 * clock * 1e3 * width / 8;
    (void)cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, ordinal);
    facts->clock_hz = clock * 1e3;
    (void)cudaDriverGetVersion(&facts->driver);
    (void)cudaRuntimeGetVersion(&facts->runtime);
    if (p.major < 8) {
        snprintf(why, why_size, "%s has compute capability %d.%d; the kernels need 8.0 or later", facts->name, p.major, p.minor);
        return -ENODEV;
    }
    r = as_errno(cudaMemGetInfo(&facts->memory_free, &facts->memory));
    if (r < 0)
        snprintf(why, why_size, "%s", cudaGetErrorString(last));
    return r < 0 && last == cudaErrorDevicesUnavailable ? -EBUSY : r; /* another process has it for itself, maybe not for long */
}

static int memory(size_t *ret_free, size_t *ret_all) { return as_errno(cudaMemGetInfo(ret_free, ret_all)); }

static int stream_new(void **ret) { return as_errno(cudaStreamCreateWithFlags((cudaStream_t *)ret, cudaStreamNonBlocking)); }
static void stream_free(void *stream)
{
    if (stream)
        (void)as_errno(cudaStreamDestroy((cudaStream_t)stream));
}

static int alloc(size_t bytes, void **ret)
{
    void *memory = nullptr;
    int r = as_errno(cudaMalloc(&memory, bytes ? bytes : 1));

    if (r == 0)
        *ret = memory;
    return r;
}
static void release(void *memory) { (void)as_errno(cudaFree(memory)); }
static int pinned(size_t bytes, void **ret) { return as_errno(cudaMallocHost(ret, bytes ? bytes : 1)); }
static void unpin(void *memory)
{
    if (memory)
        (void)as_errno(cudaFreeHost(memory));
}

static int upload(void *stream, void *device, const void *host, size_t bytes)
{
    return as_errno(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, (cudaStream_t)stream));
}
static int wait(void *stream) { return as_errno(cudaStreamSynchronize((cudaStream_t)stream)); }
static int done(void *stream)
{
    cudaError_t e = cudaStreamQuery((cudaStream_t)stream);

    if (e == cudaErrorNotReady) /* the runtime keeps that as its last error: the next launch would be blamed for it */
        (void)cudaGetLastError();
    return e == cudaSuccess ? 1 : e == cudaErrorNotReady ? 0 : as_errno(e);
}
static int download(void *stream, void *host, const void *device, size_t bytes)
{
    int r = as_errno(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, (cudaStream_t)stream));

    return r < 0 ? r : wait(stream);
}
static int copy(void *stream, void *to, const void *from, size_t bytes)
{
    return as_errno(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, (cudaStream_t)stream));
}
static int zero(void *stream, void *memory, size_t bytes)
{
    return as_errno(cudaMemsetAsync(memory, 0, bytes, (cudaStream_t)stream));
}

static int capture_begin(void *stream)
{
    return as_errno(cudaStreamBeginCapture((cudaStream_t)stream, cudaStreamCaptureModeThreadLocal));
}
static int capture_end(void *stream, void **ret_graph)
{
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    int r = as_errno(cudaStreamEndCapture((cudaStream_t)stream, &graph));

    if (r == 0)
        r = as_errno(cudaGraphInstantiate(&exec, graph, 0));
    if (graph)
        (void)as_errno(cudaGraphDestroy(graph));
    if (r == 0)
        *ret_graph = exec;
    return r;
}
static int graph_launch(void *stream, void *graph)
{
    return as_errno(cudaGraphLaunch((cudaGraphExec_t)graph, (cudaStream_t)stream));
}
static void graph_free(void *graph)
{
    if (graph)
        (void)as_errno(cudaGraphExecDestroy((cudaGraphExec_t)graph));
}

static int event_new(void **ret) { return as_errno(cudaEventCreate((cudaEvent_t *)ret)); }
static void event_free(void *event)
{
    if (event)
        (void)as_errno(cudaEventDestroy((cudaEvent_t)event));
}
static int event_mark(void *stream, void *event) { return as_errno(cudaEventRecord((cudaEvent_t)event, (cudaStream_t)stream)); }
static int stream_wait(void *stream, void *event) { return as_errno(cudaStreamWaitEvent((cudaStream_t)stream, (cudaEvent_t)event,
                                                                                        0)); }
static int event_seconds(void *from, void *to, double *ret)
{
    float ms = 0.0f;
    int r = as_errno(cudaEventSynchronize((cudaEvent_t)to));

    if (r == 0)
        r = as_errno(cudaEventElapsedTime(&ms, (cudaEvent_t)from, (cudaEvent_t)to));
    if (r == 0)
        *ret = ms * 1e-3;
    return r;
}

extern "C" void NAME(fill_machine)(struct device_kernels *k)
{
    k->name = "cuda";
    k->devices = devices;
    k->use = use;
    k->memory = memory;
    k->stream_new = stream_new;
    k->stream_free = stream_free;
    k->alloc = alloc;
    k->release = release;
    k->pinned = pinned;
    k->unpin = unpin;
    k->upload = upload;
    k->download = download;
    k->copy = copy;
    k->zero = zero;
    k->wait = wait;
    k->done = done;
    k->last_error = last_error;
    k->capture_begin = capture_begin;
    k->capture_end = capture_end;
    k->graph_launch = graph_launch;
    k->graph_free = graph_free;
    k->event_new = event_new;
    k->event_free = event_free;
    k->event_mark = event_mark;
    k->stream_wait = stream_wait;
    k->event_seconds = event_seconds;
}
