#!/usr/bin/env bash
# Put this checkout, napari and the tools of development into the virtual environment .venv.
# PYTHON chooses the interpreter; pip's own settings (index, proxy, cache) apply.
set -euo pipefail
cd "$(dirname "$0")/.."

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

python=""
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if usable "$candidate"; then
        python=$candidate
        break
    fi
done
scripts/system_libraries.sh "$python"
if [ -z "$python" ]; then
    python=python3  # just installed, where it was missing
    if ! usable "$python"; then
        echo "Python 3.11 or later is needed; found $("$python" --version 2>&1)." \
            "Install one, then run: make PYTHON=/path/to/python3.12" >&2
        exit 1
    fi
fi

echo "Setting up .venv with $("$python" --version) (a few minutes the first time)"
"$python" -m venv .venv
# Dependency groups need pip 25.1.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
.venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable ".[all]" --group dev
