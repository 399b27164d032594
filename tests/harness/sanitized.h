/* sanitized.h - for long tests: a build with sanitizers asks whether memory and threads are used well, which a part of the cases
 * answers; whether the results are right all of them have answered in the build without. */
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif
