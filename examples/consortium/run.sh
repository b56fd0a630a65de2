#!/usr/bin/env bash
# Five hospitals and a coordinator on this machine, each its own processes with its own files: keys, roster, policies, tables, training, and the check of
# all logs at the end. Every process that is started is ended, also on Ctrl-C and when something fails.
#
#   run.sh [--rounds N] [--out DIR] [--transport socket|tls|flower] [--seed N]
#
# With --seed, all noise follows from that number: a rehearsal that can be repeated (experiments/consortium_example.py), and nothing in it is private.
# `fedjax-poisson` and `python3` are taken from PATH (and `flower-superlink`, `flower-supernode`, `flwr` for Flower: pip install 'fedjax-poisson[flower]').
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rounds=20 out=consortium-run transport=socket seed=
while (($#)); do
  case $1 in
    --rounds | --out | --transport | --seed)
      (($# > 1)) || { echo "run.sh: $1 needs a value" >&2; exit 2; }
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    *) echo "usage: run.sh [--rounds N] [--out DIR] [--transport socket|tls|flower] [--seed N]" >&2; exit 2 ;;
  esac
done
[[ $transport == socket || $transport == tls || $transport == flower ]] || { echo "run.sh: --transport is socket, tls or flower, not $transport" >&2; exit 2; }
[[ $rounds =~ ^[1-9][0-9]*$ ]] || { echo "run.sh: --rounds is a number from 1 on, not $rounds" >&2; exit 2; }
[[ $seed =~ ^[0-9]*$ ]] || { echo "run.sh: --seed is a whole number, not $seed" >&2; exit 2; }
[[ ! -e $out ]] || { echo "run.sh: $out exists; keys and ledgers are never overwritten: choose another --out, or move it away" >&2; exit 2; }

# ---- every process in a group of its own, ended by that group's number (what a SuperNode starts can outlive it)
set -m
started=()
start() { # LOG COMMAND...
  "${@:2}" >"$1" 2>&1 </dev/null &
  started+=("$!")
}
any_left() {
  local pid
  for pid in "${started[@]}"; do kill -0 -- "-$pid" 2>/dev/null && return 0; done
  return 1
}
stop_all() {
  local code=$? pid
  trap - EXIT
  trap '' INT TERM
  for pid in "${started[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
  for _ in {1..300}; do any_left || break; sleep 0.1; done
  for pid in "${started[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
  if ((code)); then
    echo "run.sh: ended with code $code; the last lines of the logs in $PWD/logs:" >&2
    tail -n 5 logs/*.log >&2 2>/dev/null || true
  fi
  exit "$code"
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

wait_for() { # WORDS CHECK...: until the check holds, a minute at most
  for _ in {1..300}; do
    if "${@:2}" 2>/dev/null; then return 0; fi
    for pid in "${started[@]}"; do
      kill -0 "$pid" 2>/dev/null || { echo "run.sh: a process ended before $1" >&2; return 1; }
    done
    sleep 0.2
  done
  echo "run.sh: waited a minute for $1" >&2
  return 1
}

umask 077
mkdir -p "$out" && cd "$out" && mkdir -p logs sites policies coordinator
sites=(cleveland hungary switzerland long-beach made-up)

echo "== tables, keys, roster, policies"
python3 "$here/make_tables.py" tables
parties=()
for site in "${sites[@]}"; do
  fedjax-poisson site init --state "sites/$site" >>logs/init.log
  parties+=("$site=sites/$site/identity.pub")
  cat >"policies/$site.toml" <<POLICY
[consortium]
roster = "../roster.toml"
name = "$site"

[data]
csv = "../tables/$site.csv"
labels = ["disease"]
columns = "all"

[privacy]
unit = "record"
epsilon = 3.0
delta = 1e-4
adjacency = "zero_out"
least_honest_others = 3
minimum_senders = 5

[approval]
mode = "automatic"
POLICY
done
fedjax-poisson consortium init --name heart --site "${parties[@]}" --out roster.toml >>logs/init.log
for site in "${sites[@]}"; do # between real parties: each compares the hash on the telephone, then signs on its own machine
  fedjax-poisson consortium sign-roster roster.toml --state "sites/$site" >>logs/init.log
done

{
  printf '[consortium]\nroster = "roster.toml"\n'
  printf 'deadline_seconds = 600\n' # six processes share this machine, and compile before their first sums
  printf '\n[transport]\nkind = "%s"\n' "$transport"
  if [[ $transport == flower ]]; then
    printf 'socket = "coordinator/relay.socket"\n'
  elif [[ $transport == tls ]]; then
    port=$(python3 -c "import socket; print(socket.create_server(('127.0.0.1', 0)).getsockname()[1])")
    printf 'host = "127.0.0.1"\nport = %s\ncredentials = "keys"\n' "$port"
  else
    printf '\n[transport.sockets]\n'
    for site in "${sites[@]}"; do printf '"%s" = "sites/%s/worker.socket"\n' "$site" "$site"; done
  fi
  printf '\n[run]\nlabel = "disease"\nrounds = %s\nepsilon = 2.8\ndelta = 1e-4\nlargest_site = 400\ntraining_units = 600\nmin_site_records = 1\nevaluation = "private"\n' "$rounds"
  printf '\n[run.bounds]\n'
  cat tables/bounds.toml
} >consortium.toml

dial=()
if [[ $transport == tls ]]; then
  fedjax-poisson consortium certificates roster.toml --out keys >>logs/init.log
  dial=(--connect "127.0.0.1:$port" --credentials keys)
fi
echo "== five workers"
for site in "${sites[@]}"; do
  start "logs/$site.log" fedjax-poisson site serve "policies/$site.toml" --state "sites/$site" "${dial[@]}" ${seed:+--seed "$seed"}
done
for site in "${sites[@]}"; do wait_for "the worker of $site" test -S "sites/$site/worker.socket"; done

if [[ $transport == flower ]]; then
  echo "== a SuperLink with TLS, and five SuperNodes that sign in with their keys"
  export FLWR_HOME=$PWD/flwr FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 FLWR_SUPEREXEC_TASK_POLL_INTERVAL=0.1
  mkdir -p "$FLWR_HOME"
  python3 - "${sites[@]}" <<'PYTHON'
import sys
from pathlib import Path

from fedjax_poisson.deployment.certificates import create_certificates

create_certificates(Path("keys"), sites=sys.argv[1:])
PYTHON
  app=$(python3 -c "from fedjax_poisson.deployment.transport.flower import APP; print(APP)")
  mapfile -t ports < <(python3 - "${sites[@]}" <<'PYTHON'
import socket
import sys

probes = [socket.create_server(("127.0.0.1", 0)) for _ in sys.argv]
print(*(probe.getsockname()[1] for probe in probes), sep="\n")
PYTHON
  )
  tls=(--ssl-ca-certfile keys/ca.crt --ssl-certfile keys/server.crt --ssl-keyfile keys/server.key)
  printf '[superlink.consortium]\naddress = "127.0.0.1:%s"\nroot-certificates = "%s/keys/ca.crt"\n' "${ports[0]}" "$PWD" >"$FLWR_HOME/config.toml"
  start logs/superlink.log flower-superlink "${tls[@]}" --enable-supernode-auth --disable-runtime-dependency-installation \
    --database superlink.db --host 127.0.0.1 --port "${ports[0]}"
  wait_for "the SuperLink" python3 -c "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 1)" "${ports[0]}"
  for number in "${!sites[@]}"; do
    site=${sites[$number]}
    flwr supernode register "keys/$site.node.pub" consortium >>logs/register.log 2>&1
    start "logs/$site.node.log" flower-supernode --root-certificates keys/ca.crt --superlink "127.0.0.1:${ports[0]}" "${tls[@]}" \
      --auth-supernode-private-key "keys/$site.node" --port "${ports[$((number + 1))]}" \
      --node-config "site=\"$site\" socket=\"$PWD/sites/$site/worker.socket\""
  done
fi

echo "== $rounds rounds over $transport"
start logs/coordinator.log fedjax-poisson consortium run consortium.toml --out run
coordinator=$!
if [[ $transport == flower ]]; then
  wait_for "the coordinator's socket" test -S coordinator/relay.socket
  flwr run "$app" consortium --run-config "socket=\"$PWD/coordinator/relay.socket\"" >>logs/register.log 2>&1
fi
wait "$coordinator" || { code=$?; echo "run.sh: the coordinator ended with code $code" >&2; exit "$code"; }
tail -n 12 logs/coordinator.log

echo "== the logs of all five, against each other"
fedjax-poisson consortium verify roster.toml sites/*/site.log --transcripts run/transcripts
echo "everything is in $PWD"
