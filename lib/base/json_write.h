/* json_write.h - JSON written straight into a strbuf; commas and escapes are looked after.
 *
 *   struct json_writer w = {.out = &buffer};
 *   json_open(&w, NULL, '{');  json_text(&w, "name", "demo");  json_number(&w, "x", 1.5);  json_close(&w, '}');
 *
 * Names avoid those of jansson (json_string, json_integer), with which it is linked.
 * What is no UTF-8 in a text becomes U+FFFD, byte by byte: no reader takes such JSON, and texts are cut, and come from others.
 * `key` is NULL inside arrays and at the top. Numbers print as %.9g; NaN and infinities become null. */
#pragma once

#include <stdbool.h>

#include "base/strbuf.h"

struct json_writer {
    struct strbuf *out;
    bool need_comma;
};

void json_open(struct json_writer *w, const char *key, char bracket);       /* '{' or '[' */
void json_close(struct json_writer *w, char bracket);                       /* '}' or ']' */
void json_text(struct json_writer *w, const char *key, const char *value);    /* NULL becomes null */
void json_number(struct json_writer *w, const char *key, double value);
void json_signed(struct json_writer *w, const char *key, int64_t value);
void json_unsigned(struct json_writer *w, const char *key, uint64_t value);
void json_bool(struct json_writer *w, const char *key, bool value);
void json_interval(struct json_writer *w, const char *key, double low, double high);      /* [low, high] */
void json_raw(struct json_writer *w, const char *key, const char *json);    /* already JSON */
