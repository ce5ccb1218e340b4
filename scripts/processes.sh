#!/usr/bin/env bash
# Runs the topology of docker-compose.yml as plain processes on an Apache Kafka: starts every container's command with its settings,
# waits until each is healthy, places orders at different instances while the warehouses restart one by one, waits until every order
# has settled, audits, and stops all processes. The commands are read from docker-compose.yml (dacapo/tests/deployment).
#
#   scripts/processes.sh              on Apache Kafka (needs Java and Maven, see scripts/kafka.sh)
#   scripts/processes.sh embedded     on the embedded broker and registry
set -euo pipefail
cd "$(dirname "$0")/.."

run=(cargo test --locked -p dacapo --test deployment -- --exact --nocapture
    processes::the_topology_of_the_compose_file_runs_as_plain_processes)
case ${1:-kafka} in
    kafka) exec scripts/kafka.sh run -- "${run[@]}" ;;
    embedded) exec "${run[@]}" ;;
    *) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p;}' "$0" >&2; exit 2 ;;
esac
