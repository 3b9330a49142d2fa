#!/bin/sh
# Finds a suitable Python, and runs install.py next to this file with it. Usage: setup.sh VENV
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tried=""
# A name on PATH may be a shim of a version manager without a Python, so each candidate is run, not looked up.
for python in ${PYTHON:-} python3.11 python3.12 python3 python3.13 python3.14; do
    version=$("$python" -c 'import sys; print(".".join(map(str, sys.version_info[:3])))' 2>/dev/null) || continue
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        tried="$tried
  $python is Python $version: too old"
    elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        tried="$tried
  $python is Python $version without its venv module (Debian and Ubuntu: apt-get install python${version%.*}-venv)"
    else
        exec "$python" "$here/install.py" "$1"
    fi
done
echo "headrace needs Python 3.11 or newer with the venv module. Found:${tried:-
  no python3}
Install one, or give its path: make setup PYTHON=/path/to/python3.11" >&2
exit 2
