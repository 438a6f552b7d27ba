#!/bin/sh
# Makes .venv, installs what the page needs, starts the page: sh run.sh [--port 7861] [--host 0.0.0.0]
# With PTTP_SETUP=FILE it only installs that requirements file (tests/run.sh does so).
set -eu
cd "$(dirname "$0")"
requirements=${PTTP_SETUP:-requirements.txt}
python=${PYTHON:-python3}

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "PTTP needs Python 3.10 or newer: set PYTHON=python3.12, for example." >&2; exit 1; }
    echo "Making .venv ..."
    if ! "$python" -m venv --clear .venv >/dev/null 2>&1; then
        # Debian splits venv from Python
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
            "$python" -m venv --clear .venv
        else
            echo "Python's venv module is missing. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2
            exit 1
        fi
    fi
fi

wanted=$(cat requirements.txt "$requirements" run.sh | cksum)
stamp=.venv/installed-$(basename "$requirements")
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing $requirements (the first time takes some minutes) ..."
    # torch releases newer than the bound have not been tested yet; the requirements themselves leave them open
    .venv/bin/python -m pip install -q --disable-pip-version-check -r "$requirements" "torch<2.14"
    echo "$wanted" > "$stamp"
fi
[ -n "${PTTP_SETUP:-}" ] || exec .venv/bin/python app.py "$@"
