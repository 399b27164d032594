/* old_driver.c - a libcuda.so.1 of another time, for the CUDA runtime to find: it says which CUDA it knows, and that is too
 * old. */
#include <string.h>

int cuInit(unsigned flags);
int cuDriverGetVersion(int *ret);
int cuGetProcAddress(const char *symbol, void **ret, int version, unsigned long long flags);
int cuGetProcAddress_v2(const char *symbol, void **ret, int version, unsigned long long flags, int *status);

enum { FOUND = 0, NOT_FOUND = 500 };

int cuInit(unsigned flags) { return (void)flags, FOUND; }

int cuDriverGetVersion(int *ret)
{
    *ret = 11040;
    return FOUND;
}

int cuGetProcAddress(const char *symbol, void **ret, int version, unsigned long long flags)
{
    (void)version, (void)flags;
    *ret = !strcmp(symbol, "cuDriverGetVersion") ? (void *)cuDriverGetVersion : !strcmp(symbol, "cuInit") ? (void *)cuInit
         : !strcmp(symbol, "cuGetProcAddress")   ? (void *)cuGetProcAddress_v2 : NULL;
    return *ret ? FOUND : NOT_FOUND;
}

int cuGetProcAddress_v2(const char *symbol, void **ret, int version, unsigned long long flags, int *status)
{
    if (status)
        *status = 0;
    return cuGetProcAddress(symbol, ret, version, flags);
}
