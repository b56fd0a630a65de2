#!/usr/bin/env bash
# A folder with everything that a site installs, for machines without a package index: wheels, and locks with their SHA-256.
#
#   make_wheels.sh DIR [PROJECT]
#
# Run it on a machine with an index and with the same system, processor and Python as the sites'. Two sets, each resolved by itself, since Flower allows older
# versions of some packages: DIR/base.lock (a site or a coordinator over sockets) and DIR/flower.lock (the same with Flower). Then carry DIR to the site and:
#
#   install.sh DIR base|flower [VENV]
set -euo pipefail
(($# == 1 || $# == 2)) || { echo "usage: make_wheels.sh DIR [PROJECT]" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd) project=$(cd "${2:-$here/../..}" && pwd)
python=${PYTHON:-python3}
[[ -z $(ls -A "$folder") ]] || { echo "make_wheels.sh: $folder is not empty; give a new folder, so that nothing old is in it" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" "$project"
own=$(ls "$folder"/*.whl)
for set in base:consortium flower:consortium,flower; do
  name=${set%%:*}
  "$python" -m pip install --quiet --dry-run --ignore-installed --only-binary :all: --report "$work/$name.json" "$own[${set#*:}]"
  "$python" "$here/lock.py" wanted "$work/$name.json" "$own" >"$work/$name.txt"
  if [[ -s $work/$name.txt ]]; then
    "$python" -m pip download --quiet --no-deps --only-binary :all: --dest "$folder" --requirement "$work/$name.txt"
  fi
  "$python" "$here/lock.py" lock "$work/$name.json" "$folder" >"$folder/$name.lock"
  echo "$name: $(grep -c -- --hash "$folder/$name.lock") packages"
done
du -sh "$folder" | cut -f1
