/* dtype.c - sizes, names and conversions of the number types a .safetensors file may hold. */
#include <errno.h>

#include "nn/safetensors.h"

static const struct { const char *name; size_t size; } dtypes[] = {
    [DTYPE_F32] = {"F32", 4}, [DTYPE_F16] = {"F16", 2}, [DTYPE_BF16] = {"BF16", 2}, [DTYPE_F64] = {"F64", 8},
    [DTYPE_I64] = {"I64", 8}, [DTYPE_I32] = {"I32", 4}, [DTYPE_I16] = {"I16", 2}, [DTYPE_I8] = {"I8", 1},
    [DTYPE_U8] = {"U8", 1},   [DTYPE_BOOL] = {"BOOL", 1},
};

size_t dtype_size(enum dtype dtype)
{
    return dtypes[dtype].size;
}

const char *dtype_name(enum dtype dtype)
{
    return dtypes[dtype].name;
}

int dtype_parse(const char *name, enum dtype *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(dtypes); i++)
        if (!strcmp(dtypes[i].name, name)) {
            *ret = (enum dtype)i;
            return 0;
        }
    return -EINVAL;
}

static float from_bits(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* Half precision: 1 sign, 5 exponent (bias 15), 10 mantissa bits. */
static float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 0x1f, mantissa = half & 0x3ff;

    if (exponent == 0x1f)
        return from_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) {                                        /* subnormal: mantissa * 2^-24 */
        float magnitude = (float)mantissa * 0x1p-24f;

        return sign ? -magnitude : magnitude;
    }
    return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t float_to_bf16(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    if ((bits & 0x7fffffff) > 0x7f800000)                       /* NaN stays NaN, whatever its payload */
        return (uint16_t)(bits >> 16 | 0x40);
    bits += 0x7fff + (bits >> 16 & 1);                          /* nearest, ties to even */
    return (uint16_t)(bits >> 16);
}

#define WIDEN(type, expression)                                 \
    for (int64_t i = 0; i < n; i++) {                           \
        type v;                                                 \
                                                                \
        memcpy(&v, source + i * (int64_t)sizeof(v), sizeof(v)); \
        ret[i] = (float)(expression);                           \
    }                                                           \
    return 0

/* memcpy per element: a tensor in a file need not be aligned. */
int st_read_f32(const struct st_tensor *tensor, int64_t first, int64_t n, float *ret)
{
    const char *source;

    if (first < 0 || n < 0 || n > tensor->numel || first > tensor->numel - n)
        return -ERANGE;
    source = (const char *)tensor->data + first * (int64_t)dtype_size(tensor->dtype);
    switch (tensor->dtype) {
    case DTYPE_F32: memcpy(ret, source, (size_t)n * sizeof(float)); return 0;
    case DTYPE_F16: WIDEN(uint16_t, half_to_float(v));
    case DTYPE_BF16: WIDEN(uint16_t, from_bits((uint32_t)v << 16));
    case DTYPE_F64: WIDEN(double, v);
    case DTYPE_I64: WIDEN(int64_t, v);
    case DTYPE_I32: WIDEN(int32_t, v);
    case DTYPE_I16: WIDEN(int16_t, v);
    case DTYPE_I8: WIDEN(int8_t, v);
    case DTYPE_U8: WIDEN(uint8_t, v);
    case DTYPE_BOOL: break;
    }
    return -EINVAL;
}
