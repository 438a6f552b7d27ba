#!/bin/sh
# Makes .venv, installs the development requirements and, if there is none, a Chromium; then runs every test: sh tests/run.sh [pytest options]
set -eu
cd "$(dirname "$0")/.."
PTTP_SETUP=requirements-dev.txt sh run.sh

found=${CHROMIUM:-}
for name in chromium chromium-browser google-chrome; do
    found=${found:-$(command -v "$name" || true)}
done
if [ -z "$found" ]; then
    echo "Installing a Chromium for the browser tests ..."
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq chromium >/dev/null
    else
        .venv/bin/python -m playwright install chromium
    fi
fi
# Two processes: the browser's tests wait more than they compute, all others fill the time.
exec .venv/bin/python -m pytest tests -n 2 "$@"
