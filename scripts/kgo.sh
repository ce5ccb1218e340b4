#!/usr/bin/env bash
# The tests of franz-go's client (pkg/kgo) against a broker: a client in another language, with protocol code of its own.
#
#   scripts/kgo.sh HOST:PORT      a broker that runs
#   scripts/kgo.sh embedded       an embedded broker, started for the tests (builds the example `broker`)
#   scripts/kafka.sh run -- sh -c 'scripts/kgo.sh "$DACAPO_TEST_KAFKA"'
#
# The tests come from the Go module proxy, pinned below; the first run downloads and compiles them (two minutes), the tests take about
# half a minute. Prints `N passed, N failed, N skipped`, subtests included. KGO_TEST_RECORDS (50000) sets the load.
# Exit codes: 0 passed, 1 failed, 2 wrong usage, 3 Go is missing.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MODULE=github.com/twmb/franz-go@v1.21.5
LIMIT_SECONDS=600

say() { printf '%s\n' "$*" >&2; }
[ $# -eq 1 ] || { sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}" >&2; exit 2; }
command -v go >/dev/null 2>&1 || { say "kgo.sh: 'go' was not found (on Debian: apt install golang). Skipped."; exit 3; }

scratch=$(mktemp -d)
broker=""
finish() {
    [ -z "$broker" ] || kill -INT "$broker" 2>/dev/null || true
    rm -rf "$scratch"
}
trap finish EXIT

bootstrap=$1
if [ "$bootstrap" = embedded ]; then
    cargo build --quiet --locked --manifest-path "$ROOT/Cargo.toml" -p dacapo-embedded --example broker
    "${CARGO_TARGET_DIR:-$ROOT/target}/debug/examples/broker" >"$scratch/broker.out" 2>"$scratch/broker.err" &
    broker=$!
    for _ in $(seq 100); do
        [ ! -s "$scratch/broker.out" ] || break
        sleep 0.1
    done
    bootstrap=$(head -1 "$scratch/broker.out")
    [ -n "$bootstrap" ] || { say "kgo.sh: the embedded broker did not start:"; cat "$scratch/broker.err" >&2; exit 1; }
fi

say "fetching $MODULE"
# Outside of any Go module: the one in question is the only one.
module=$(cd "$scratch" && go mod download -json "$MODULE" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
(cd "$module" && go test -c -o "$scratch/kgo.test" ./pkg/kgo)

say "testing $bootstrap"
status=0
(cd "$module/pkg/kgo" && KGO_SEEDS=$bootstrap KGO_TEST_RF=1 KGO_TEST_RECORDS=${KGO_TEST_RECORDS:-50000} \
    "$scratch/kgo.test" -test.v -test.timeout "${LIMIT_SECONDS}s") >"$scratch/log" 2>&1 || status=1
count() { grep -cE "^ *--- $1: " "$scratch/log" || true; }
grep -E '^ *--- FAIL: |^panic: ' "$scratch/log" || true
printf '%s passed, %s failed, %s skipped\n' "$(count PASS)" "$(count FAIL)" "$(count SKIP)"
exit "$status"
