/* json_at.h - what stands at a key of a JSON object, for whoever prints it. What is missing or of another type is not known;
 * so is all of an object that is NULL. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

double number_at(const json_t *object, const char *key);            /* NaN: not known */
const char *text_at(const json_t *object, const char *key);         /* borrowed; "": not known */
/* [low, high], as json_interval writes it. False: not known, outputs untouched; a null within it is NaN. */
bool interval_at(const json_t *object, const char *key, double *ret_low, double *ret_high);
