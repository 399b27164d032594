#include "env_worker/settings.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/yaml_tree.h"

int worker_settings_parse(const char *text, struct worker_settings *ret, struct error *error)
{
    _cleanup_(yaml_tree_freep) struct yaml_node *root = NULL;
    const struct yaml_node *suite, *name, *image;
    struct worker_settings settings;
    char *end;
    long size;
    int r = yaml_tree_parse(text, strlen(text), "Welcome.config", &root, error);

    if (r < 0)
        return r;
    if (root->kind != YAML_MAP)
        return error_set(error, EINVAL, "Welcome.config: not a map");
    suite = yaml_tree_get(root, "suite");
    name = suite && suite->kind == YAML_MAP ? yaml_tree_get(suite, "name") : suite;
    image = suite && suite->kind == YAML_MAP ? yaml_tree_get(suite, "image") : yaml_tree_get(root, "image");
    if (!name || name->kind != YAML_SCALAR || !image || image->kind != YAML_SCALAR)
        return error_set(error, EINVAL, "Welcome.config: suite and image must be given; is the coordinator of another version?");

    if (snprintf(settings.suite, sizeof(settings.suite), "%s", name->text) >= (int)sizeof(settings.suite))
        return error_set(error, EINVAL, "Welcome.config: suite name is too long");
    size = strtol(image->text, &end, 10);
    if (*end || end == image->text || size < 8 || size > 1024)
        return error_set(error, EINVAL, "Welcome.config: image: '%s' is no size of 8 to 1024 pixels", image->text);
    settings.image = (int)size;
    *ret = settings;
    return 0;
}
