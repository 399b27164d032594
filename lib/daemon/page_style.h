/* page_style.h - how gantry's pages look, by day and by night: the status page of a running run (coordinator/page.c) and the
 * report of one that is down (cli/report.c).
 *
 * Colours are named here alone. The browser says which set holds (prefers-color-scheme); paper has the light one. Charts draw
 * lines of the frame in --line and text in --soft, and series in colours that stand out from both grounds, --blue first. */
#pragma once

#define PAGE_STYLE                                                                                                            \
    ":root{color-scheme:light dark;"                                                                                          \
    "--ink:#1c2126;--soft:#667;--line:#e4e7eb;--ground:#fff;--inset:#fafbfc;--bad:#b3261e;--blue:#0072b2}\n"                  \
    "@media screen and (prefers-color-scheme:dark){:root{"                                                                    \
    "--ink:#dde1e6;--soft:#98a2ad;--line:#2c3238;--ground:#14171a;--inset:#181c20;--bad:#ff8a80;--blue:#3f94e6}}\n"           \
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;padding:0 1rem;color:var(--ink);background:var(--ground)}\n"    \
    "table{border-collapse:collapse}th,td{border-bottom:1px solid var(--line)}\n"                                             \
    "svg{background:var(--inset);border:1px solid var(--line)}.bad{color:var(--bad)}\n"
