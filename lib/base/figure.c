#include "base/figure.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

double figure(double value, int decimals)
{
    char text[64];

    if (!isfinite(value) || fabs(value) >= 1)
        return value;
    snprintf(text, sizeof text, "%.*f", decimals, value);
    return strpbrk(text, "123456789") ? value : 0;
}
