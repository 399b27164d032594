/* torch_file.h - read what torch.save wrote: a ZIP archive with a pickle that describes named tensors, and their bytes.
 *
 * Nothing in it is executed: the pickle may name OrderedDict, torch's tensor rebuilders and its storage types, and nothing else.
 * What comes out are tensors as from a .safetensors file, pointing into the mapped archive (a transposed view is laid out
 * densely in memory of its own). The root is a dict of names and tensors; a dict inside is joined by a dot, and the "module."
 * that DistributedDataParallel puts before every name is taken off.
 * Thread rule: none.  Failure rule: -errno and one line: file, tensor, found, expected. */
#pragma once

#include "nn/safetensors.h"

struct torch_file;

/* -EPERM: the pickle names what it may not; -EINVAL: no such file, or a damaged one. */
int torch_file_open(const char *path, struct torch_file **ret, struct error *error);
/* From memory (fuzzing): borrows bytes; `name` stands for the path in messages. */
int torch_file_parse(const char *name, const void *bytes, size_t n, struct torch_file **ret, struct error *error);
struct torch_file *torch_file_close(struct torch_file *file);
DEFINE_FREEP(struct torch_file, torch_file_close)

/* In the file's order; valid until close. */
const struct st_tensor *torch_file_tensors(const struct torch_file *file, int *ret_n);
