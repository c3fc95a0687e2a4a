#!/usr/bin/env bash
# Finds or installs the Python that the tests check spinectl against (tests/python/requirements.txt), and links .venv to it.
#
#   XDG_CACHE_HOME   the cache that all clones of this user share lies here (~/.cache where unset)
#
# Exit codes: 0 ready; 2 wrong use; 3 this machine lacks something. Why it works this way: docs/provisioning.md.
set -euo pipefail

# Measured with torch 2.11.0; the peak counts the downloaded wheels twice, in pip's cache and in its temporary folder.
readonly SIZE_MB=5200 PEAK_MB=10700

cache="${XDG_CACHE_HOME:-${HOME:?is not set, so XDG_CACHE_HOME has to name the folder of the cache}/.cache}/spinectl"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
requirements="$root/tests/python/requirements.txt"
# Clones with other requirements have an environment of their own.
environment="$cache/tests-$(sha256sum "$requirements" | cut -c 1-12)"
readonly cache root requirements environment link="$root/.venv" marker_name=spinectl-requirements.txt
readonly marker="$environment/$marker_name"

say() { printf 'setup-tests: %s\n' "$*"; }
fail() { # CODE MESSAGE...
  local code=$1
  shift
  printf 'setup-tests: error: %s\n' "$@" >&2
  exit "$code"
}

gigabytes() { LC_ALL=C awk -v mb="$1" 'BEGIN { printf "%.1f GB", mb / 1000 }'; } # MEGABYTES

check_python() {
  command -v python3 >/dev/null || fail 3 "python3 is not installed (apt-get install python3 python3-venv)"
  python3 -c 'import ensurepip, venv' 2>/dev/null || fail 3 "python3 cannot make virtual environments (apt-get install python3-venv)"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail 3 "the pinned torch has wheels for Python 3.10 and newer, this python3 is older: put a newer one first on PATH"
}

# The marker is a copy of the requirements, made last. The environment borrows python3 from the system, and with another version
# of that in its place it does not find its own packages any more.
is_complete() {
  cmp --silent "$requirements" "$marker" &&
    "$environment/bin/python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("timm") is None)' 2>/dev/null
}

# A virtual environment cannot be moved, so it is made where it stays; a lock and the marker take the place of a rename.
install() {
  local free_mb others
  check_python
  mkdir -p "$cache"

  # Left open for pip too: should this script be killed alone, the next one waits until its pip has ended as well.
  exec 9>"$cache/.$(basename "$environment").lock"
  if ! flock --nonblock 9; then
    say "another setup is installing $environment; waiting for that one"
    flock 9
  fi
  # Whoever held the lock a moment ago may have made it.
  if is_complete; then return; fi
  if [ -e "$environment" ]; then
    say "removing what cannot be used, of an interrupted setup or of another python3: $environment"
    # The marker goes first, so that an interruption here leaves nothing that looks whole.
    rm -f "$marker"
    rm -rf "$environment"
  fi

  free_mb=$(df -Pk "$cache" | awk 'NR == 2 { print int($4 * 1024 / 1e6) }')
  [ "$free_mb" -ge "$PEAK_MB" ] ||
    fail 3 "installing torch and timm for the tests takes $(gigabytes "$PEAK_MB") at its peak and $cache has $(gigabytes "$free_mb") free: make room, or set XDG_CACHE_HOME to a larger disk"
  others=$(find "$cache" -maxdepth 1 -name 'tests-*' -printf ' %f')
  [ -z "$others" ] || say "$cache holds environments of other requirements, to be deleted where no clone needs them:$others"
  say "installing torch and timm for the tests ($(gigabytes "$SIZE_MB") on disk) into $environment"

  trap 'rm -rf "$environment"' EXIT
  python3 -m venv "$environment" || fail 3 "python3 could not make a virtual environment in $environment (its own words are above)"
  # pip downloads into TMPDIR: on the same disk, so that a small /tmp does not matter.
  mkdir "$environment/.tmp"
  TMPDIR="$environment/.tmp" PIP_ROOT_USER_ACTION=ignore "$environment/bin/python" -m pip install \
    --quiet --only-binary=:all: --disable-pip-version-check -r "$requirements" ||
    fail 3 "pip could not install $requirements (its own words are above). Run make setup-tests again; a mirror is taken from pip's settings (PIP_INDEX_URL, PIP_FIND_LINKS)"
  rm -rf "$environment/.tmp"
  "$environment/bin/python" -c 'import timm, torchvision' ||
    fail 3 "pip has installed packages that do not load (Python's own words are above)"
  sync --file-system "$environment"
  # By rename, so that the marker is whole or not there.
  cp "$requirements" "$marker.partial"
  mv "$marker.partial" "$marker"
  trap - EXIT
}

link_to_environment() {
  [ "$(readlink "$link" || true)" != "$environment" ] || return 0
  # Earlier versions made the environment in the clone itself.
  if [ -d "$link" ] && [ ! -L "$link" ] && [ -e "$link/$marker_name" ]; then
    say "removing the environment that an earlier version made in $link"
    rm -rf "$link"
  fi
  if [ -e "$link" ] && [ ! -L "$link" ]; then
    fail 2 "$link is not of this script's making, so it is left alone: move it away and run make setup-tests again"
  fi
  # rename(2) over the old link: no moment without one for a test that runs.
  ln -sfn "$environment" "$link.$$"
  mv -fT "$link.$$" "$link"
  say ".venv -> $environment"
}

main() {
  if is_complete; then
    say "already there: $environment"
  else
    install
  fi
  link_to_environment
}

main
