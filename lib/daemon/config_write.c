/* config_write.c - a struct back into YAML, and a row into words. */
#include <inttypes.h>
#include <math.h>

#include "daemon/config.h"

/* Plain where YAML reads it back as the same string, quoted otherwise. */
static void write_string(const char *text, struct strbuf *out)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+@%-";
    bool plain = text[0] && text[0] != '-' && text[0] != '%' && text[0] != '@' && strspn(text, safe) == strlen(text);

    if (plain) {
        strbuf_adds(out, text);
        return;
    }
    strbuf_addc(out, '"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            strbuf_addc(out, '\\');
        strbuf_addc(out, *text);
    }
    strbuf_addc(out, '"');
}

/* The shortest decimal that reads back as the same double. */
static void write_double(double value, struct strbuf *out)
{
    char text[40];

    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    strbuf_adds(out, text);
}

static void write_scalar(const struct config_key *key, const void *at, struct strbuf *out)
{
    switch (key->type) {
    case CONFIG_TYPE_INT: case CONFIG_TYPE_INTS: strbuf_addf(out, "%d", *(const int *)at); break;
    case CONFIG_TYPE_U64: strbuf_addf(out, "%" PRIu64, *(const uint64_t *)at); break;
    case CONFIG_TYPE_DOUBLE: case CONFIG_TYPE_DOUBLES: write_double(*(const double *)at, out); break;
    case CONFIG_TYPE_BOOL: strbuf_adds(out, *(const bool *)at ? "true" : "false"); break;
    case CONFIG_TYPE_CHOICE: strbuf_adds(out, key->choices[*(const int *)at]); break;
    default: write_string(at, out); break;
    }
}

static void write_section(const struct config_key *table, const void *from, struct strbuf *out)
{
    const char *comma = "";

    strbuf_addc(out, '{');
    for (const struct config_key *key = table; key->name; key++) {
        strbuf_addf(out, "%s%s: ", comma, key->name);
        config_write_value(key, from, out);
        comma = ", ";
    }
    strbuf_addc(out, '}');
}

void config_write_value(const struct config_key *key, const void *from, struct strbuf *out)
{
    const char *at = (const char *)from + key->offset;
    size_t size = key->type == CONFIG_TYPE_INTS ? sizeof(int) : key->type == CONFIG_TYPE_DOUBLES ? sizeof(double) : key->size;
    int n;

    if (key->type < CONFIG_TYPE_INTS) {
        write_scalar(key, at, out);
        return;
    }
    n = *(const int *)((const char *)from + key->count_offset);
    strbuf_addc(out, '[');
    for (int i = 0; i < n; i++) {
        if (i)
            strbuf_adds(out, ", ");
        if (key->type == CONFIG_TYPE_SECTIONS)
            write_section(key->table, at + (size_t)i * size, out);
        else
            write_scalar(key, at + (size_t)i * size, out);
    }
    strbuf_addc(out, ']');
}

void config_write(const struct config_key *table, const void *from, unsigned indent, struct strbuf *out)
{
    for (const struct config_key *key = table; key->name; key++) {
        strbuf_addf(out, "%*s%s: ", (int)indent, "", key->name);
        config_write_value(key, from, out);
        strbuf_addc(out, '\n');
    }
}

static void describe_range(const struct config_key *key, struct strbuf *out)
{
    if (fabs(key->max) >= 1e9)
        strbuf_addf(out, ", %.9g or more", key->min);
    else
        strbuf_addf(out, " from %.9g to %.9g", key->min, key->max);
}

static void describe_choices(const struct config_key *key, struct strbuf *out)
{
    strbuf_adds(out, "one of ");
    for (int i = 0; key->choices[i]; i++)
        strbuf_addf(out, "%s%s", i ? ", " : "", key->choices[i]);
}

void config_describe(const struct config_key *key, struct strbuf *out)
{
    switch (key->type) {
    case CONFIG_TYPE_INT: strbuf_adds(out, "a whole number"); describe_range(key, out); break;
    case CONFIG_TYPE_U64: strbuf_adds(out, "a whole number of 64 bits"); break;
    case CONFIG_TYPE_DOUBLE: strbuf_adds(out, "a number"); describe_range(key, out); break;
    case CONFIG_TYPE_BOOL: strbuf_adds(out, "true or false"); break;
    case CONFIG_TYPE_CHOICE: describe_choices(key, out); break;
    case CONFIG_TYPE_STRING:
        if (key->choices)
            describe_choices(key, out);
        else
            strbuf_addf(out, "text of at most %zu bytes", key->size - 1);
        break;
    case CONFIG_TYPE_INTS: strbuf_addf(out, "a list of at most %d whole numbers", key->max_count); break;
    case CONFIG_TYPE_DOUBLES: strbuf_addf(out, "a list of at most %d numbers", key->max_count); break;
    case CONFIG_TYPE_STRINGS: strbuf_addf(out, "a list of at most %d names", key->max_count); break;
    case CONFIG_TYPE_SECTIONS:
        strbuf_addf(out, "a list of at most %d maps with the keys ", key->max_count);
        for (const struct config_key *row = key->table; row->name; row++)
            strbuf_addf(out, "%s%s", row == key->table ? "" : ", ", row->name);
        break;
    }
}
