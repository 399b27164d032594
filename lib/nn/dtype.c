/* dtype.c - sizes, names and conversions of the number types a .safetensors file may hold. */
#include <errno.h>
#include <stdio.h>

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

const char *dtype_torch_name(enum dtype dtype)
{
    static const char *const names[] = {
        [DTYPE_F32] = "float32", [DTYPE_F16] = "float16", [DTYPE_BF16] = "bfloat16", [DTYPE_F64] = "float64",
        [DTYPE_I64] = "int64",   [DTYPE_I32] = "int32",   [DTYPE_I16] = "int16",     [DTYPE_I8] = "int8",
        [DTYPE_U8] = "uint8",    [DTYPE_BOOL] = "bool",
    };

    return names[dtype];
}

bool dtype_is_weight(enum dtype dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16;
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

/* By the float's own rounding: scaled so that the last bit kept is the last of the mantissa, or of a subnormal half. */
uint16_t float_to_f16(float value)
{
    uint32_t bits, sign, exponent;
    float magnitude;

    memcpy(&bits, &value, sizeof(bits));
    sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);                       /* NaN */
    if (bits >= 0x47800000)
        return (uint16_t)(sign | 0x7c00);                       /* 65536 and above */
    if (bits < 0x38800000) {                                    /* below 2^-14: a multiple of 2^-24 */
        magnitude = from_bits(bits) + 0.5f;                     /* 0.5's last bit is 2^-24: the sum is rounded to it */
        memcpy(&bits, &magnitude, sizeof(bits));
        return (uint16_t)(sign | (bits - 0x3f000000));
    }
    bits += 0xfff + (bits >> 13 & 1);                           /* nearest, ties to even; may carry into the exponent */
    exponent = (bits >> 23) - 112;
    return (uint16_t)(sign | (exponent << 10) | (bits >> 13 & 0x3ff));
}

int floats_to_dtype(const float *values, int64_t n, enum dtype dtype, void *ret_bytes)
{
    uint16_t *half = ret_bytes;

    switch (dtype) {
    case DTYPE_F32: memcpy(ret_bytes, values, (size_t)n * sizeof(float)); return 0;
    case DTYPE_BF16:
        for (int64_t i = 0; i < n; i++)
            half[i] = float_to_bf16(values[i]);
        return 0;
    case DTYPE_F16:
        for (int64_t i = 0; i < n; i++) {
            half[i] = float_to_f16(values[i]);
            if ((half[i] & 0x7fff) == 0x7c00 && values[i] - values[i] == 0)
                return -ERANGE;
        }
        return 0;
    default: return -EINVAL;
    }
}

void shape_text(const int64_t *dim, int ndim, char *ret, size_t size)
{
    size_t used = 0;

    ret[0] = '\0';
    for (int i = 0; i < ndim && used < size; i++)
        used += (size_t)snprintf(ret + used, size - used, "%s%lld", i ? "," : "", (long long)dim[i]);
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

/* Is any exponent all ones? No early exit, so that the compiler makes wide instructions of it (at -O3: Makefile). */
#define ANY_NOT_FINITE(name, type, mask)                                  \
    static bool any_##name(const char *source, int64_t n)           \
    {                                                               \
        type found = 0;                                             \
                                                                    \
        for (int64_t i = 0; i < n; i++) {                           \
            type v;                                                 \
                                                                    \
            memcpy(&v, source + i * (int64_t)sizeof(v), sizeof(v)); \
            found |= (type)((v & (mask)) == (mask));                \
        }                                                           \
        return found;                                               \
    }
ANY_NOT_FINITE(f32, uint32_t, 0x7f800000)
ANY_NOT_FINITE(f16, uint16_t, 0x7c00)
ANY_NOT_FINITE(bf16, uint16_t, 0x7f80)
ANY_NOT_FINITE(f64, uint64_t, 0x7ff0000000000000)

int64_t st_not_finite(const struct st_tensor *tensor)
{
    static bool (*const any[])(const char *, int64_t) = {
        [DTYPE_F32] = any_f32, [DTYPE_F16] = any_f16, [DTYPE_BF16] = any_bf16, [DTYPE_F64] = any_f64, [DTYPE_BOOL] = NULL,
    };
    int64_t width = (int64_t)dtype_size(tensor->dtype), step = 1 << 16;

    if (!any[tensor->dtype])
        return -1;
    for (int64_t at = 0; at < tensor->numel;) {
        int64_t n = MIN(step, tensor->numel - at);

        if (!any[tensor->dtype]((const char *)tensor->data + at * width, n))
            at += n;
        else if (step == 1)
            return at;
        else
            step = 1;           /* it is in this block: one by one from here */
    }
    return -1;
}
