/* stand_in_driver.c - a libcuda.so.1 that has no device and says yes: cuDNN then compiles its kernels and keeps them, which shows
 * whether it has any for a graph on a device that is only described (tests/nn/test_dnn_engines.c). cuInit fails, for the compiler
 * (NVRTC) to ask no further. */
#include <stddef.h>

enum { SUCCESS = 0, NO_DEVICE = 100 };
static int something;

#define YES(name) \
    int name(void); \
    int name(void) { return SUCCESS; }
#define HANDLE(name) \
    int name(void **ret); \
    int name(void **ret) { return *ret = &something, SUCCESS; }
#define NUMBER(name, value) \
    int name(int *ret); \
    int name(int *ret) { return *ret = (value), SUCCESS; }
#define WORDS(name) \
    int name(int status, const char **ret); \
    int name(int status, const char **ret) { return (void)status, *ret = "", SUCCESS; }

YES(cuCtxGetLimit) YES(cuCtxPopCurrent) YES(cuCtxPushCurrent) YES(cuStreamGetCtx)
YES(cuLinkCreate) YES(cuLinkAddData) YES(cuLinkComplete) YES(cuLinkDestroy)
YES(cuLaunchKernel) YES(cuLaunchCooperativeKernel) YES(cuLaunchKernelEx) YES(cuLibraryUnload) YES(cuKernelSetAttribute)
HANDLE(cuCtxGetCurrent) HANDLE(cuLibraryLoadData) HANDLE(cuLibraryLoadFromFile) HANDLE(cuLibraryGetKernel)
NUMBER(cuDeviceGetCount, 1) NUMBER(cuDeviceGet, 0) NUMBER(cuKernelGetAttribute, 0) NUMBER(cuOccupancyMaxPotentialClusterSize,
                                                                                          8) NUMBER(cuDriverGetVersion, 13000)
WORDS(cuGetErrorName) WORDS(cuGetErrorString)

int cuInit(unsigned flags);
int cuInit(unsigned flags) { return (void)flags, NO_DEVICE; }
int cuGetExportTable(const void **ret);
int cuGetExportTable(const void **ret) { return *ret = NULL, NO_DEVICE; }
