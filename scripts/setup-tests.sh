#!/usr/bin/env bash
# Makes .venv with the Python packages that the tests read spinectl's files back with (tests/python/requirements.txt).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly requirements=tests/python/requirements.txt marker=.venv/spinectl-requirements.txt

# The marker is a copy of the requirements, made last: without it the environment is half made, with another one it is old.
is_complete() { cmp --silent "$requirements" "$marker" && [ -x .venv/bin/python ]; }
fail() {
  printf 'setup-tests: error: %s\n' "$*" >&2
  exit 3
}

if ! is_complete; then
  command -v python3 >/dev/null || fail "python3 is not installed (apt-get install python3 python3-venv)"
  python3 -c 'import ensurepip, venv' 2>/dev/null || fail "python3 cannot make virtual environments (apt-get install python3-venv)"
  exec 9<"$requirements"
  flock 9
fi
if is_complete; then
  echo "setup-tests: .venv is already there"
  exit
fi

echo "setup-tests: making .venv (about 200 MB)"
python3 -m venv --clear .venv
PIP_ROOT_USER_ACTION=ignore .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements" ||
  fail "pip could not install $requirements (its own words are above): run make setup-tests again"
cp "$requirements" "$marker"
echo "setup-tests: .venv is ready"
