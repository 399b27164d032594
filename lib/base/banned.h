/* banned.h - calls that are always a mistake here; using one is a compile error. */
#pragma once

#include <stdio.h>
#include <string.h>
#include <time.h>

#undef strcpy
#define strcpy(...) gantry_banned_use_snprintf_or_strbuf
#undef strcat
#define strcat(...) gantry_banned_use_strbuf
#undef sprintf
#define sprintf(...) gantry_banned_use_snprintf
#undef vsprintf
#define vsprintf(...) gantry_banned_use_vsnprintf
#undef strncpy
#define strncpy(...) gantry_banned_use_snprintf
#undef strtok
#define strtok(...) gantry_banned_use_strtok_r
#undef localtime
#define localtime(...) gantry_banned_use_localtime_r
#undef gmtime
#define gmtime(...) gantry_banned_use_gmtime_r
#undef atoi
#define atoi(...) gantry_banned_use_strtol
