#include "cli/json_at.h"

#include <math.h>

static double number(const json_t *value) { return json_is_number(value) ? json_number_value(value) : NAN; }

double number_at(const json_t *object, const char *key) { return number(json_object_get(object, key)); }

const char *text_at(const json_t *object, const char *key) { return json_string_value(json_object_get(object, key)) ?: ""; }

bool interval_at(const json_t *object, const char *key, double *ret_low, double *ret_high)
{
    const json_t *interval = json_object_get(object, key);

    if (json_array_size(interval) != 2)
        return false;
    *ret_low = number(json_array_get(interval, 0));
    *ret_high = number(json_array_get(interval, 1));
    return true;
}
