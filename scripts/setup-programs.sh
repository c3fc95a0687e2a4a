#!/usr/bin/env bash
# Installs what the tests want of Debian's packages: Chromium, which shows TensorBoard's pages, and Prometheus, which reads a run's
# metrics. Needs root. Without them, the tests leave out those parts and say so; CI insists on them.
#
# Exit codes: 0 there; 3 this machine cannot install them.
set -euo pipefail

missing=()
for program in chromium prometheus; do
  command -v "$program" >/dev/null || missing+=("$program")
done
[ ${#missing[@]} -gt 0 ] || { echo "setup-programs: already there"; exit 0; }

fail() {
  echo "setup-programs: error: $1" >&2
  exit 3
}
command -v apt-get >/dev/null || fail "this is not Debian: install ${missing[*]} by the system's own means"
[ "$(id -u)" = 0 ] || fail "installing ${missing[*]} needs root: sudo apt-get install ${missing[*]}"
apt=(apt-get -qq -o DPkg::Lock::Timeout=600)
export DEBIAN_FRONTEND=noninteractive
"${apt[@]}" update || fail "apt-get cannot read its lists of packages (its own words are above)"
"${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null ||
  fail "apt-get could not install ${missing[*]} (its own words are above)"
echo "setup-programs: installed ${missing[*]}"
