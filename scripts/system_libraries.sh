#!/usr/bin/env bash
# Make sure that Qt and a virtual screen can start on Linux. Libraries are looked for by what they
# provide, so nothing is asked of a machine that has them; missing ones are installed through
# apt-get where that needs no password, and named otherwise.
set -euo pipefail

[ "$(uname)" = Linux ] || exit 0

# what is needed = Debian package that brings it
libraries="
libEGL.so.1=libegl1
libGL.so.1=libgl1
libGLX_mesa.so.0=libglx-mesa0
libglib-2.0.so.0=libglib2.0-0
libdbus-1.so.3=libdbus-1-3
libfontconfig.so.1=libfontconfig1
libfreetype.so.6=libfreetype6
libX11-xcb.so.1=libx11-xcb1
libxkbcommon.so.0=libxkbcommon0
libxkbcommon-x11.so.0=libxkbcommon-x11-0
libxcb-cursor.so.0=libxcb-cursor0
libxcb-icccm.so.4=libxcb-icccm4
libxcb-image.so.0=libxcb-image0
libxcb-keysyms.so.1=libxcb-keysyms1
libxcb-randr.so.0=libxcb-randr0
libxcb-render-util.so.0=libxcb-render-util0
libxcb-shape.so.0=libxcb-shape0
libxcb-xkb.so.1=libxcb-xkb1
"
programs="xvfb-run=xvfb xauth=xauth"

missing=()
cache=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null || true)
for pair in $libraries; do
    [[ "$cache" == *"${pair%%=*} "* ]] || missing+=("${pair##*=}")
done
for pair in $programs; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair##*=}")
done
# Mesa's software renderer is opened at run time, and text needs at least one font.
[[ " ${missing[*]-} " == *" libglx-mesa0 "* ]] && missing+=(libgl1-mesa-dri)
[[ -n "$(find /usr/share/fonts -name '*.[ot]tf' -print -quit 2>/dev/null)" ]] ||
    missing+=(fonts-dejavu-core)
# Debian ships `python3` without what makes virtual environments.
if [ -z "${1:-}" ]; then
    missing+=(python3 python3-venv)
elif ! "$1" -c 'import venv, ensurepip' 2>/dev/null; then
    missing+=("$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')")
fi
[ "${#missing[@]}" -gt 0 ] || exit 0

if command -v apt-get >/dev/null; then
    if [ "$(id -u)" = 0 ]; then
        run=(env)
    elif sudo -n true 2>/dev/null; then
        run=(sudo -n env)
    fi
fi
if [ -z "${run:-}" ]; then
    {
        echo "These are missing, and installing them needs an administrator: ${missing[*]}"
        echo "On Debian or Ubuntu:  sudo apt-get install ${missing[*]}"
        echo "Elsewhere, install the packages that bring the same libraries, then run make again."
    } >&2
    exit 1
fi
echo "Installing ${missing[*]}"
"${run[@]}" apt-get update -qq
"${run[@]}" DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >/dev/null
