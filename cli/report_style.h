/* report_style.h - what pages about ended runs (report.c, compare_page.c) add to the looks that all pages have. */
#pragma once

#include "daemon/page_style.h"

#define REPORT_STYLE PAGE_STYLE \
    "body{max-width:1180px}h1{margin-bottom:0}h2{border-bottom:1px solid var(--line);margin-top:2em}.big{font-size:1.35em;margin:.6em 0}" \
    "table{margin:.6em 0;display:block;overflow-x:auto}td,th{padding:.25em .8em;text-align:right}" \
    "td:first-child,th:first-child{text-align:left}td .note,.wide td,.wide th{white-space:nowrap}" \
    ".plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(440px,100%),1fr));gap:12px}" \
    "svg.plot{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}" \
    "svg text.title{font-size:13px;font-weight:600;fill:var(--ink)}" \
    ".note{color:var(--soft)}pre{background:var(--inset);padding:1em;overflow:auto;font-size:13px}img{max-width:100%}"
