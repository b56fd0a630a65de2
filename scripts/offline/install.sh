#!/usr/bin/env bash
# Install from a folder of `make_wheels.sh`, without any index: every wheel must have the SHA-256 that the lock states, and nothing else is taken.
#
#   install.sh DIR base|flower [VENV]
set -euo pipefail
[[ $# -ge 2 && $# -le 3 && ($2 == base || $2 == flower) ]] || { echo "usage: install.sh DIR base|flower [VENV]" >&2; exit 2; }
folder=$(cd "$1" && pwd) lock=$2.lock venv=${3:-.venv}
[[ -f $folder/$lock ]] || { echo "install.sh: there is no $lock in $folder; make it with make_wheels.sh" >&2; exit 2; }
[[ ! -e $venv ]] || { echo "install.sh: $venv exists; give another VENV, or move it away" >&2; exit 2; }
export PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1
unset PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip --isolated install --quiet --no-index --no-deps --only-binary :all: --no-cache-dir --find-links "$folder" --require-hashes --requirement "$folder/$lock"
"$venv/bin/python" -m pip check
