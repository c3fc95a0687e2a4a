#!/usr/bin/env bash
# Installs what the tests want of Debian's packages: Chromium, which shows TensorBoard's pages, and Prometheus, which reads a run's
# metrics. Needs root. Debian's Prometheus comes with a service of its own, which the tests do not use. Without the programs the
# tests leave out those parts and say so; CI insists on them.
#
# Exit codes: 0 there; 3 this machine cannot install them.
set -euo pipefail

look() {
  missing=()
  local program
  for program in chromium prometheus; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  [ ${#missing[@]} -gt 0 ] || { echo "setup-programs: already there"; exit 0; }
}
look

fail() {
  echo "setup-programs: error: $1" >&2
  exit 3
}
command -v apt-get >/dev/null || fail "this is not Debian: install ${missing[*]} by the system's own means"
[ "$(id -u)" = 0 ] || fail "installing ${missing[*]} needs root: sudo apt-get install ${missing[*]}"
# One at a time: apt-get does not wait for the lists of packages. Another one may have installed them meanwhile.
cache="${XDG_CACHE_HOME:-${HOME:?is not set, so XDG_CACHE_HOME has to name the folder of the cache}/.cache}/spinectl"
mkdir -p "$cache"
exec 9>"$cache/.setup-programs.lock"
flock 9
look
export DEBIAN_FRONTEND=noninteractive
install=(apt-get -qq -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "${missing[@]}")
# The lists that are there may do, and one source that cannot be reached may be another one. A service that is started must not hold
# the lock.
"${install[@]}" >/dev/null 2>&1 9>&- || { apt-get -qq update || true; "${install[@]}" >/dev/null 9>&-; } ||
  fail "apt-get could not install ${missing[*]} (its own words are above)"
echo "setup-programs: installed ${missing[*]}"
