#include "serve/device_use.h"

#include "base/log.h"

int device_use(const char *name, struct error *error)
{
    _cleanup_(device_unrefp) struct device *device = NULL;
    int r = device_open(name, &device, error);

    if (r < 0)
        return r == -ENODEV ? -EINVAL : r;      /* as an argument that cannot be used: to start again finds no other */
    device_set_process(device);
    if (!device)
        return 0;
    log_info("device", "device=%s name=%s capability=%d.%d memory_gib=%.1f free_gib=%.1f driver=%d.%d blas=%s attention=%s",
             device->name,
             LOG_Q(device->facts.name), device->facts.major, device->facts.minor, (double)device->facts.memory / 0x1p30,
             (double)device->facts.memory_free / 0x1p30, device->facts.driver / 1000, device->facts.driver % 1000 / 10,
             device->blas ? "cublaslt" : "own", device->dnn ? "cudnn" : "own");
    if (!device->blas)
        log_warn("products are the own kernels', several times slower", "reason=%s",
                 LOG_Q("libcublasLt.so.13 cannot be opened; put its folder into LD_LIBRARY_PATH"));
    if (!device->dnn)
        log_warn("attention is the own kernel's", "reason=%s", LOG_Q(device->no_dnn));
    return 0;
}

struct device_seen device_watch(struct lifecycle *lifecycle)
{
    static bool told_gemm, told_attention, told_loss;
    struct device_fallbacks now = device_fallbacks(device_process());
    struct device_seen seen = {.fallbacks = now, .memory_used = device_memory_used(device_process())};

    if (now.gemm && !told_gemm)
        log_warn("cuBLASLt refuses a product: the own kernel does it, slower", "device=%s so_far=%llu reason=%s",
                 device_process()->name, now.gemm, LOG_Q(device_product_refusal(device_process())));
    if (now.attention && !told_attention) {
        const char *reason = device_refusal(device_process());

        log_warn("cuDNN does not take an attention: the own kernel does it, slower", "device=%s so_far=%llu reason=%s",
                 device_process()->name, now.attention, LOG_Q(reason[0] ? reason : "its sequences differ in length"));
    }
    if (device_lost(device_process()) && !told_loss) {
        log_error("the device answers no more, this process ends and may be started again", "device=%s reason=%s remedy=%s",
                  device_process()->name, LOG_Q(device_lost(device_process())),
                  LOG_Q("nvidia-smi and dmesg (Xid) say what happened to it"));
        told_loss = true;
        lifecycle_stop(lifecycle, 1);
    }
    told_gemm = told_gemm || now.gemm;
    told_attention = told_attention || now.attention;
    seen.memory = device_process() ? device_process()->facts.memory : 0;
    return seen;
}
