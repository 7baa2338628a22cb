#!/bin/sh
# Makes .venv from the locks of one stack; does nothing when .venv is whole and up to date.
#
#   scripts/setup.sh          what a run needs
#   scripts/setup.sh dev      that, and what tests, lint and types need
#   scripts/setup.sh python   only prints the stack and the Python that it would use
#   scripts/setup.sh uv       only prints the uv that it would use
#
# STACK=today   Python 3.13, 3.12 or 3.11, and glibc 2.39 or newer: requirements/
# STACK=py310   Python 3.10, for older systems: requirements/py310/
#               unset: the stack of .venv if there is one, else today's where it can run, else py310
# PYTHON=path   the Python to use
# GPU=0 or 1    leave out or add the CUDA wheels; unset: add them when there is an NVIDIA driver
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}
runs() { "$@" >/dev/null 2>&1; }
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || :; }

# Keeps what a command says, which is shown only if it fails.
try() { said=$("$@" 2>&1); }

# Prints the last of the lines in said that match, from the match on; fails if there is none.
tool_said() {
    line=$(say "$said" | sed -nE "s/.*($1)/\1/p" | tail -n 1)
    [ -n "$line" ] && say "$line" >&2
}

unconnected='failed to lookup|Temporary failure in name resolution|Name or service not known|'
unconnected="${unconnected}Connection (refused|reset)|unreachable|No route to host|[Tt]imed out"

# Ends after a tool has failed: its telling line, then the reason and the remedy in one sentence.
give_up() {
    index=UV_DEFAULT_INDEX certificates=SSL_CERT_FILE
    if ! runs "$uv" --version; then index=PIP_INDEX_URL certificates=PIP_CERT; fi
    if tool_said '(cause|cp|mkdir): .*(No space left|quota exceeded)|\[Errno (28|122)\]'; then
        why="the disk is full; free 4 GB (\`df -h\`) where $(pwd) is, and 3 GB where uv's cache is,"
        why="$why if on another disk (\`export UV_CACHE_DIR=/FOLDER\` moves it)"
    elif tool_said 'Failed to initialize cache.*'; then
        why="uv cannot write its cache; \`export UV_CACHE_DIR='$(pwd)/.tools/cache'\`"
    elif tool_said "command '[^']*' failed: No such file|cannot execute .cc1plus"; then
        why="pyfarmhash comes as source and there is no C++ compiler;"
        why="$why as root, \`apt-get install g++\` (Fedora: \`dnf install gcc-c++\`)"
    elif tool_said 'Python.h: No such file'; then
        why="pyfarmhash comes as source and Python's headers are missing;"
        why="$why as root, \`apt-get install python3.10-dev\` (Fedora: \`dnf install python3.10-devel\`)"
    elif tool_said 'invalid peer certificate|SSLError|SSLCertVerificationError'; then
        why="the registry's certificate is not trusted; name a file with your network's certificates,"
        why="$why \`export $certificates=/etc/ssl/certs/ca-certificates.crt\`"
    elif tool_said "$unconnected"; then
        why="no connection; connect this machine or name your proxy, \`export HTTPS_PROXY=http://HOST:PORT\`"
    elif tool_said 'HTTP status .*|Because .* was not found in the package|No matching distribution'; then
        why="the package registry does not have it; name another, \`export $index=https://HOST/simple\`"
    else
        say "$said" >&2
        die "$1; the reason is above"
    fi
    die "$1: $why, and run this again."
}

# Not of another user, and not on a disk that is read-only.
check_writable() {
    [ -w . ] || die "cannot write to $(pwd): copy it, \`cp -r '$(pwd)' ~\`, and run this in the copy."
    [ ! -e "$1" ] || [ -w "$1" ] ||
        die "cannot write to $1: \`sudo chown -R \$(id -u) '$(pwd)/$1'\`, and run this again."
}

libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || say 'a C library that is not glibc')
has_new_glibc() {
    say "$libc" | awk '/^glibc/ { split($2, n, "."); new = n[1] > 2 || n[2] >= 39 } END { exit !new }'
}

# Sets uv: the one on the PATH (a pyenv shim can be there and fail), or the project's own.
find_uv() {
    for uv in uv "$(pwd)/.tools/bin/uv"; do
        if runs "$uv" --version; then return; fi
    done
    check_writable .tools
    for maker in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3.10 python3; do
        runs "$maker" -c '' || continue
        if try "$maker" -m venv --clear .tools; then
            try .tools/bin/python -m pip install -qq --disable-pip-version-check --require-hashes \
                -r requirements/uv.txt || give_up "could not install uv"
            return
        fi
        # venv does not say that the disk is full.
        try mkdir -p .tools && try cp requirements/base.txt .tools || give_up "could not make .tools"
    done
    die "no uv, and no Python with its venv module, which can install it: as root," \
        "\`apt-get install python3-venv\` (Fedora: \`dnf install python3\`), and run this again."
}

# uv does not read pip's configuration; who has no uv may have told pip of a registry.
follow_pip() {
    [ "$uv" != uv ] || return 0
    for setting in UV_DEFAULT_INDEX=index-url SSL_CERT_FILE=cert; do
        value=$(.tools/bin/python -m pip config list 2>/dev/null |
            sed -n "s/^[a-z:]*\.${setting#*=}='\(.*\)'$/\1/p" | tail -n 1)
        eval "${setting%=*}=\${${setting%=*}:-\$value}"
        [ -z "$value" ] || export "${setting%=*}"
    done
}

# pyfarmhash of py310 is built from source, and Debian has the headers in a package of their own.
has_headers() {
    runs "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}

# Prints its path, or why there is none.
fetch_version() {
    try "$uv" python install "$1" || { say "$said" && return 1; }
    candidate=$("$uv" python find --python-preference only-managed "$1" 2>/dev/null)
    [ "$(version "$candidate")" = "$1" ] && say "$candidate"
}

# A Python of this version that is on this machine; of 3.10, one with headers comes first.
find_version() {
    pyenv_root=${PYENV_ROOT:-$(pyenv root 2>/dev/null || say "${HOME:-}/.pyenv")}
    bare=
    for candidate in "python$1" "$pyenv_root/versions/$1".*/bin/python \
        "$("$uv" python find "$1" 2>/dev/null)"; do
        [ "$(version "$candidate")" = "$1" ] || continue
        if [ "$1" != 3.10 ] || has_headers "$candidate"; then
            say "$candidate"
            return
        fi
        bare=${bare:-$candidate}
    done
    [ -n "$bare" ] || return 1
    fetched=$(fetch_version "$1") || fetched=$bare
    say "$fetched" # the bare one may do: uv may have pyfarmhash from before
}

# Sets python, and the stack that it has.
find_python() {
    versions=
    if [ "$stack" != py310 ] && has_new_glibc; then versions='3.13 3.12 3.11'; fi
    if [ "$stack" != today ]; then versions="$versions 3.10"; fi
    [ -n "$versions" ] || die "STACK=today needs glibc 2.39 or newer, and this system has $libc:" \
        "use STACK=py310."
    for find in find_version fetch_version; do
        for each in $versions; do
            if python=$($find "$each"); then
                stack=$(stack_of "$each")
                return
            fi
            said=$python
        done
    done
    set -- $versions
    tool_said 'cause: .*|error: .*' || :
    die "no Python $(say "$*" | sed 's/ /, /g; s/, \([^,]*\)$/ or \1/') here (with $libc; 3.11 to 3.13 need" \
        "glibc 2.39), and uv cannot download it: connect this machine, or \`pyenv install $1\`, or" \
        "name one, \`export PYTHON=/PATH/TO/python$1\`, and run this again."
}

stack_of() {
    case $1 in
        3.10) say py310 ;;
        3.11 | 3.12 | 3.13) say today ;;
    esac
}

# Sets stack and why, as far as they are known without a search: from PYTHON, STACK or .venv.
read_wishes() {
    case ${STACK:=} in
        '' | today | py310) ;;
        *) die "STACK=$STACK: there are today and py310" ;;
    esac
    python=${PYTHON:-}
    if [ -n "$python" ]; then
        runs command -v "$python" || die "PYTHON=$python: no such program"
        stack=$(stack_of "$(version "$python")")
        [ -n "$stack" ] ||
            die "PYTHON=$python is not a Python 3.10 to 3.13 ($("$python" --version 2>&1 || :))"
        [ "${STACK:-$stack}" = "$stack" ] ||
            die "PYTHON=$python is a Python $(version "$python"), which has not STACK=$STACK"
        [ "$stack" = py310 ] || has_new_glibc ||
            die "PYTHON=$python: Python 3.11 to 3.13 need glibc 2.39 or newer, and this system has" \
                "$libc: use a Python 3.10."
        why="PYTHON=$python"
    elif [ -n "$STACK" ]; then
        stack=$STACK
        why="STACK=$STACK"
    else
        why=
        case $(cat .venv/.stamp 2>/dev/null) in
            *' requirements/py310/'*) stack=py310 ;;
            *' requirements/'*) stack=today ;;
            *) stack= ;;
        esac
        [ -z "$stack" ] || why='as before'
    fi
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
    for lock in $locks; do sha256sum "$lock"; done
}

# The locks wanted: those asked for, and those that are in .venv already.
choose_locks() {
    folder=requirements
    if [ "$stack" = py310 ]; then folder=requirements/py310; fi
    locks=$folder/base.txt
    if [ "$want" = dev ] || runs grep "$folder/dev.txt$" .venv/.stamp; then
        locks="$locks $folder/dev.txt"
    fi
    if has_gpu || runs grep "$folder/gpu.txt$" .venv/.stamp; then
        locks="$locks $folder/gpu.txt"
    fi
}

is_up_to_date() {
    [ -n "$stack" ] || return 1
    choose_locks
    [ "$(stamp)" = "$(cat .venv/.stamp 2>/dev/null)" ] && runs .venv/bin/python -c ''
}

# Whole, and each lock in it unchanged: then the new ones can be added to it.
can_grow() {
    [ -n "$stack" ] && [ -s .venv/.stamp ] && runs .venv/bin/python -c '' || return 1
    ! stamp | grep -vxFf - .venv/.stamp >/dev/null
}

install() {
    set --
    for lock in $locks; do set -- "$@" -r "$lock"; done
    # The locks are complete, so nothing is resolved (--no-deps). Build tools of packages that come
    # as source are held to the locked versions too. Bytecode is compiled here, on all cores: left
    # to the first import it takes longer, and with PYTHONDONTWRITEBYTECODE it is lost each time.
    try "$uv" pip install --quiet --python .venv/bin/python --no-deps --require-hashes \
        --build-constraints "$folder/base.txt" --compile-bytecode "$@" ||
        give_up "could not install the packages"
}

want=${1:-run}
case $want in
    run | dev) ;;
    python)
        read_wishes
        if [ -z "$python" ]; then find_uv && find_python; fi
        say "$stack $python"
        exit
        ;;
    uv)
        find_uv
        say "$uv"
        exit
        ;;
    *) die "unknown argument '$want'; see the top of scripts/setup.sh" ;;
esac

read_wishes
if is_up_to_date; then exit 0; fi

# One set-up at a time; the lock goes when this process and its children end, however they end.
if runs command -v flock; then
    exec 9<scripts/setup.sh
    flock -n 9 || { say 'Waiting for another set-up of this folder ...' && flock 9; }
    read_wishes
    if is_up_to_date; then exit 0; fi
fi

started=$(date +%s)
check_writable .venv
find_uv
follow_pip
if can_grow; then
    say "Adding to .venv ($stack, $why): $locks ..."
    rm .venv/.stamp # from here on .venv is not whole, until the stamp is back
else
    [ -n "$python" ] || find_python
    choose_locks
    if [ -z "$why" ]; then
        why="$libc, Python $(version "$python")"
    fi
    say "Making .venv of the stack $stack ($why) with $python: $locks ..."
    rm -f .venv/.stamp
    rm -rf .venv
    try "$uv" venv --quiet --no-project --python "$python" .venv || give_up "could not make .venv"
fi
install
stamp >.venv/.stamp.new
mv .venv/.stamp.new .venv/.stamp
say "Set up in $(($(date +%s) - started)) s."
