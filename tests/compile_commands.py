#!/usr/bin/env python3
"""compile_commands.py - `make -B -n V=1 all` on stdin becomes compile_commands.json on stdout."""
import json
import os
import shlex
import sys

commands = []
for line in sys.stdin:
    try:
        words = shlex.split(line)
    except ValueError:
        continue
    if "-c" not in words or "-o" not in words:
        continue
    source = words[-1]
    if source.endswith((".c", ".cu")):
        commands.append({"directory": os.getcwd(), "file": source, "arguments": words})
json.dump(commands, sys.stdout, indent=0)
