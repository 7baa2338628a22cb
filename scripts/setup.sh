#!/bin/sh
# Makes .venv from the locks in requirements/; does nothing when .venv is whole and up to date.
#
#   scripts/setup.sh          what a run needs
#   scripts/setup.sh dev      that, and what tests, lint and types need
#   scripts/setup.sh python   only prints the Python 3.10 it would use
#
# PYTHON=path   the Python 3.10 to use
# GPU=0 or 1    leave out or add the CUDA wheels; unset: add them when there is an NVIDIA driver
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}
runs() { "$@" >/dev/null 2>&1; }
is_310() { runs "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))'; }
# pyfarmhash is built from source, and Debian has the headers in a package of their own.
has_headers() {
    runs "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}
has_uv() { runs uv --version; } # a pyenv shim can be on the PATH and fail

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        runs command -v "$PYTHON" || die "PYTHON=$PYTHON: no such program"
        is_310 "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.10 ($("$PYTHON" --version 2>&1 || :))"
        say "$PYTHON"
        return
    fi
    pyenv_root=${PYENV_ROOT:-$(pyenv root 2>/dev/null || say "${HOME:-}/.pyenv")}
    bare=
    for candidate in python3.10 "$pyenv_root"/versions/3.10.*/bin/python \
        "$(uv python find 3.10 2>/dev/null)"; do
        is_310 "$candidate" || continue
        if has_headers "$candidate"; then
            say "$candidate"
            return
        fi
        bare=${bare:-$candidate}
    done
    if runs uv python install --quiet 3.10 &&
        candidate=$(uv python find --python-preference only-managed 3.10 2>/dev/null) &&
        is_310 "$candidate"; then
        say "$candidate"
        return
    fi
    if [ -n "$bare" ]; then
        say "$bare" # uv or pip may have pyfarmhash from before
        return
    fi
    die "no Python 3.10 found. Install one (python3.10 with its venv module, \`pyenv install 3.10\`" \
        "or \`uv python install 3.10\`), or set PYTHON to its path, and run this again."
}

has_gpu() {
    case ${GPU:-} in
        0) return 1 ;;
        1) return 0 ;;
        *) [ -e /proc/driver/nvidia/version ] || runs nvidia-smi ;;
    esac
}

# What .venv/.stamp holds once .venv is whole: where it is (a virtual environment cannot be moved)
# and the hash of each lock in it.
stamp() {
    pwd -P
    for name in $locks; do
        (cd requirements && sha256sum "$name.txt")
    done
}

# The locks wanted: those asked for, and those that are in .venv already.
choose_locks() {
    locks=base
    if [ "$want" = dev ] || runs grep ' dev.txt$' .venv/.stamp; then locks="$locks dev"; fi
    if has_gpu || runs grep ' gpu.txt$' .venv/.stamp; then locks="$locks gpu"; fi
}

up_to_date() { [ "$(stamp)" = "$(cat .venv/.stamp 2>/dev/null)" ] && runs .venv/bin/python -c ''; }

# Whole, and each lock in it unchanged: then the new ones can be added to it.
can_grow() {
    [ -s .venv/.stamp ] && runs .venv/bin/python -c '' || return 1
    stamp | grep -vxFf - .venv/.stamp >/dev/null && return 1
    has_uv || runs .venv/bin/python -m pip --version
}

install() {
    set --
    for name in $locks; do set -- "$@" -r "requirements/$name.txt"; done
    # The locks are complete, so nothing is resolved (--no-deps). Build tools of packages that come
    # as source are held to the locked versions too. Bytecode is compiled here, on all cores: left
    # to the first import it takes longer, and with PYTHONDONTWRITEBYTECODE it is lost each time.
    if has_uv; then
        uv pip install --quiet --python .venv/bin/python --no-deps --require-hashes \
            --build-constraints requirements/base.txt --compile-bytecode "$@"
    else
        # pip wants build tools without hashes here.
        grep -o '^[^ #]*==[^ ]*' requirements/base.txt >.venv/constraints.txt
        PIP_CONSTRAINT=.venv/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
            .venv/bin/python -m pip install -qq --use-pep517 --no-deps --require-hashes "$@"
    fi || die "could not install the packages; the reason is above. (No network? A few packages" \
        "come as source: pyfarmhash needs a C++ compiler and Python's headers; Debian: g++," \
        "python3.10-dev.)"
}

want=${1:-run}
case $want in
    run | dev) ;;
    python)
        find_python
        exit
        ;;
    *) die "unknown argument '$want'; see the top of scripts/setup.sh" ;;
esac

choose_locks
if up_to_date; then exit 0; fi

# One set-up at a time; the lock goes when this process and its children end, however they end.
if runs command -v flock; then
    exec 9<scripts/setup.sh
    flock -n 9 || { say 'Waiting for another set-up of this folder ...' && flock 9; }
    choose_locks
    if up_to_date; then exit 0; fi
fi

started=$(date +%s)
tool=pip
if has_uv; then tool=uv; fi
if can_grow; then
    say "Adding to .venv from requirements/ ($locks) with $tool ..."
    rm .venv/.stamp # from here on .venv is not whole, until the stamp is back
else
    python=$(find_python)
    say "Making .venv from requirements/ ($locks) with $tool and $python ..."
    rm -f .venv/.stamp
    rm -rf .venv
    if has_uv; then
        uv venv --quiet --no-project --python "$python" .venv
    else
        runs "$python" -m venv .venv ||
            die "$python cannot make a virtual environment; install its venv module (Debian: python3.10-venv)"
    fi
fi
install
stamp >.venv/.stamp.new
mv .venv/.stamp.new .venv/.stamp
say "Set up in $(($(date +%s) - started)) s."
