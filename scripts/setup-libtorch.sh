#!/usr/bin/env bash
# Finds or installs the libtorch that the workspace is built against, and links .libtorch to it.
#
#   LIBTORCH=DIR                       take this libtorch (an unpacked libtorch, or a wheel's torch folder); installs nothing
#   SPINECTL_LIBTORCH_SET=small|full   which wheels to install: full is the default where there is a GPU, small elsewhere
#   XDG_CACHE_HOME                     the cache that all clones of this user share lies here (~/.cache where unset)
#
# Exit codes: 0 ready; 2 wrong use; 3 this machine lacks something. Why it works this way: docs/provisioning.md.
set -euo pipefail

readonly VERSION=2.11.0 SERIES=2.11
readonly SMALL_WHEELS="torch==$VERSION nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85"
# The last two hold the headers that NCCL's own headers include; torch does not ask for them.
readonly FULL_WHEELS="torch==$VERSION nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85"

cache="${XDG_CACHE_HOME:-${HOME:?is not set, so XDG_CACHE_HOME has to name the folder of the cache}/.cache}/spinectl"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
partial='' # the install being made, in a folder of its own until it is whole
readonly cache root link="$root/.libtorch" marker=spinectl-install.txt

say() { printf 'setup: %s\n' "$*"; }
fail() { # CODE MESSAGE...
  local code=$1
  shift
  printf 'setup: error: %s\n' "$@" >&2
  exit "$code"
}

gigabytes() { LC_ALL=C awk -v mb="$1" 'BEGIN { printf "%.1f GB", mb / 1000 }'; } # MEGABYTES

check_tools() {
  local missing=()
  command -v g++ >/dev/null || missing+=("g++ is not installed (Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++)")
  command -v make >/dev/null || missing+=("make is not installed (apt-get install make; dnf install make)")
  command -v cargo >/dev/null || missing+=("cargo is not on PATH: install Rust as https://rustup.rs says")
  [ ${#missing[@]} -eq 0 ] || fail 3 "${missing[@]}"
}

check_pip() {
  local otherwise="or name an existing libtorch $SERIES: LIBTORCH=DIR make setup"
  command -v python3 >/dev/null ||
    fail 3 "libtorch comes as Python wheels and python3 is not installed (apt-get install python3 python3-pip), $otherwise"
  python3 -m pip --version >/dev/null 2>&1 ||
    fail 3 "libtorch comes as Python wheels and python3 has no pip (apt-get install python3-pip), $otherwise"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail 3 "torch $VERSION has wheels for Python 3.10 and newer, this python3 is older: put a newer one first on PATH, $otherwise"
  [ "$(uname -sm)" = "Linux x86_64" ] ||
    fail 3 "the pinned wheels are for Linux x86_64 and this is $(uname -sm): name a libtorch $SERIES of yours: LIBTORCH=DIR make setup"
}

# The version of the headers, since they are what is compiled against; wheels and archives both carry them. Nothing where there are none.
version_of() { # DIR
  local include="$1/include/torch"
  cat "$include/headeronly/version.h" "$include/csrc/api/include/torch/version.h" 2>/dev/null |
    awk '$1 == "#define" && $2 ~ /^TORCH_VERSION_(MAJOR|MINOR|PATCH)$/ && !seen[$2]++ { v = v "." $3 } END { print substr(v, 2) }'
}

# What keeps DIR from being used; nothing where it fits.
fault_of() { # DIR
  local file version
  [ -d "$1" ] || { echo "there is no such folder"; return; }
  for file in lib/libtorch_cpu.so include/torch/csrc/distributed/c10d/ProcessGroupGloo.hpp; do
    [ -e "$1/$file" ] || { echo "it has no $file"; return; }
  done
  version=$(version_of "$1")
  case "$version" in
  "$SERIES".*) ;;
  *) echo "it is version ${version:-unknown} and the bindings (tch) need $SERIES" ;;
  esac
}

install_of() { echo "$cache/libtorch-$VERSION-$1"; } # SET

wanted_set() {
  case "${SPINECTL_LIBTORCH_SET:-}" in
  small | full) echo "$SPINECTL_LIBTORCH_SET" ;;
  "")
    # Where machines share a home, what the one with the GPU has linked stays when the one without runs make.
    if [ -e /dev/nvidia0 ] || nvidia-smi -L 2>/dev/null | grep -q '^GPU' || [ "$(readlink "$link")" = "$(install_of full)/torch" ]; then
      echo full
    else
      echo small
    fi
    ;;
  *) fail 2 "SPINECTL_LIBTORCH_SET is '$SPINECTL_LIBTORCH_SET': it is small or full" ;;
  esac
}

link_to() { # DIR
  if [ -e "$link" ] && [ ! -L "$link" ]; then
    fail 2 "$link is no link, so it is left alone: move it away, or name it: LIBTORCH=THE_NEW_PLACE make setup"
  fi
  [ "$(readlink "$link" || true)" != "$1" ] || return 0
  # rename(2) over the old link: no moment without one for a build that runs.
  ln -sfn "$1" "$link.$$"
  mv -fT "$link.$$" "$link"
  say ".libtorch -> $1"
}

is_complete() { # INSTALL WHEELS
  [ -e "$1/torch/lib/libtorch_cpu.so" ] && [ "$(cat "$1/$marker" 2>/dev/null)" = "$2" ]
}

# Figures measured with torch 2.11.0; the peak counts the downloaded wheels twice, in pip's cache and beside the install.
install_wheels() { # SET WHEELS INSTALL
  local set=$1 wheels=$2 install=$3 size_mb=1200 peak_mb=2500 options=(--no-deps) free_mb fault
  if [ "$set" = full ]; then size_mb=4800 peak_mb=10500 options=(); fi
  check_pip
  partial="$cache/.partial-$(basename "$install")"
  mkdir -p "$cache"

  # Left open for pip too: should this script be killed alone, the next one waits until its pip has ended as well.
  exec 9>"$cache/.$(basename "$install").lock"
  if ! flock --nonblock 9; then
    say "another setup is installing it into $install; waiting for that one"
    flock 9
  fi
  # Whoever held the lock a moment ago may have made it.
  if is_complete "$install" "$wheels"; then return; fi
  if [ -e "$partial" ]; then
    say "removing what an interrupted setup left: $partial"
    rm -rf "$partial"
  fi

  free_mb=$(df -Pk "$cache" | awk 'NR == 2 { print int($4 * 1024 / 1e6) }')
  [ "$free_mb" -ge "$peak_mb" ] ||
    fail 3 "installing libtorch ($set) takes $(gigabytes "$peak_mb") at its peak and $cache has $(gigabytes "$free_mb") free: make room, or set XDG_CACHE_HOME to a larger disk"
  say "installing libtorch $VERSION ($set, $(gigabytes "$size_mb") on disk) into $install"

  trap 'rm -rf "$partial"' EXIT
  mkdir -p "$partial/.tmp"
  # pip unpacks in TMPDIR and moves: on the same disk that is a rename, and a small /tmp does not matter.
  # shellcheck disable=SC2086 # the wheels are words
  TMPDIR="$partial/.tmp" PIP_REQUIRE_VIRTUALENV=false PIP_ROOT_USER_ACTION=ignore python3 -m pip install \
    "${options[@]}" --no-compile --only-binary=:all: --disable-pip-version-check --target "$partial" $wheels ||
    fail 3 "pip could not install: $wheels (its own words are above). Run make setup again; a mirror is taken from pip's settings (PIP_INDEX_URL, PIP_FIND_LINKS)"
  rm -rf "$partial/.tmp"
  fault=$(fault_of "$partial/torch")
  [ -z "$fault" ] || fail 3 "pip has installed a torch that cannot be used: $fault"
  printf '%s\n' "$wheels" >"$partial/$marker"
  sync --file-system "$partial"
  rm -rf "$install"
  mv -T "$partial" "$install"
  trap - EXIT
}

main() {
  check_tools
  # Under cargo, LIBTORCH is the link itself (.cargo/config.toml): no choice of the user's.
  if [ "${LIBTORCH:-}" = "$link" ]; then unset LIBTORCH; fi

  local fault set wheels install
  if [ -n "${LIBTORCH:-}" ]; then
    fault=$(fault_of "$LIBTORCH")
    [ -z "$fault" ] || fail 2 "LIBTORCH=$LIBTORCH cannot be used: $fault. Name a libtorch $SERIES, or unset LIBTORCH and make setup installs one"
    LIBTORCH=$(cd "$LIBTORCH" && pwd -P)
    link_to "$LIBTORCH"
    say "libtorch $(version_of "$LIBTORCH") is yours: $LIBTORCH"
    return
  fi

  set=$(wanted_set)
  if [ "$set" = full ]; then wheels=$FULL_WHEELS; else wheels=$SMALL_WHEELS; fi
  install=$(install_of "$set")

  # A libtorch of the user's, linked by an earlier run, stays until a set is asked for by name.
  if [ -L "$link" ] && [ -z "${SPINECTL_LIBTORCH_SET:-}" ] && [[ $(readlink "$link") != "$cache"/libtorch-* ]] && [ -z "$(fault_of "$link")" ]; then
    say "libtorch $(version_of "$link") is already there: $(readlink "$link")"
    return
  fi

  if is_complete "$install" "$wheels"; then
    say "libtorch $VERSION ($set) is already there: $install"
  else
    install_wheels "$set" "$wheels" "$install"
  fi
  link_to "$install/torch"
}

main
