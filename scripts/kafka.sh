#!/usr/bin/env bash
# A private Apache Kafka and schema registry for tests, without containers.
#
#   scripts/kafka.sh fetch                  download the jars (once, about 200 MB, into .kafka/)
#   scripts/kafka.sh start [DIR]            start both on free ports; data, logs and process ids in DIR
#                                           (default: a new temporary directory); prints DIR/endpoints.env
#   scripts/kafka.sh stop DIR               stop the broker and the registry of `start DIR`; DIR is kept
#   scripts/kafka.sh kill-broker DIR        kill -9 the broker
#   scripts/kafka.sh freeze-broker DIR      suspend the broker (SIGSTOP); `thaw-broker DIR` resumes it (SIGCONT)
#   scripts/kafka.sh restart-broker DIR     start the broker again on the same data and port (stops it first if it runs)
#   scripts/kafka.sh tool CLASS ARGS...     run a tool from the jars, e.g. `tool TopicCommand --list ...`;
#                                           a short name is in org.apache.kafka.tools
#   scripts/kafka.sh run -- COMMAND...      start, run COMMAND with DACAPO_TEST_KAFKA and DACAPO_TEST_REGISTRY
#                                           set, stop, remove the data, exit with COMMAND's code
#
# Exit codes: 0 done, 1 failed, 2 wrong usage, 3 Java or Maven is missing.
# DACAPO_KAFKA_CACHE sets the cache folder, DACAPO_KAFKA_VERSION another release (a cache holds one release: set both),
# DACAPO_KAFKA_HEAP (default 768m) sizes the broker.
# Only tests need this script; the product does not.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${DACAPO_KAFKA_CACHE:-$ROOT/.kafka}
KAFKA_VERSION=4.3.1
KAFKA_VERSION=${DACAPO_KAFKA_VERSION:-$KAFKA_VERSION}
REGISTRY_VERSION=2.6.13.Final
READY_SECONDS=60

say() { printf '%s\n' "$*" >&2; }
die() { say "kafka.sh: $*"; exit 1; }
usage() { sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}" >&2; exit 2; }

need() { # need PROGRAM WHAT
    command -v "$1" >/dev/null 2>&1 && return
    say "kafka.sh: '$1' was not found. A test against Apache Kafka needs $2 (on Debian: apt install default-jre-headless maven)."
    say "Skipped: everything that runs on Apache Kafka $KAFKA_VERSION. The embedded broker and registry need no Java."
    exit 3
}

fetched() { [ -f "$CACHE/lib/kafka_2.13-$KAFKA_VERSION.jar" ] && [ -f "$CACHE/registry/version-$REGISTRY_VERSION" ]; }

# The download goes to a temporary folder first, so an interrupted fetch leaves no incomplete cache.
fetch() {
    need java "a Java runtime, 17 or later"
    fetched && return
    need mvn "Maven to get the jars"
    local scratch
    mkdir -p "$CACHE"
    scratch=$(mktemp -d "$CACHE/fetch.XXXXXX")
    say "fetching Apache Kafka $KAFKA_VERSION and a registry into $CACHE (once)"
    cp "$ROOT/scripts/kafka-pom.xml" "$scratch/pom.xml"
    if ! mvn -q -B -f "$scratch/pom.xml" package -Ddestination="$scratch" \
            -Dkafka.version="$KAFKA_VERSION" -Dregistry.version="$REGISTRY_VERSION" >"$scratch/mvn.log" 2>&1; then
        tail -20 "$scratch/mvn.log" >&2
        rm -rf "$scratch"
        die "maven could not get the jars (is the network or a mirror reachable?)"
    fi
    mkdir "$scratch/registry"
    tar -xzf "$scratch/registry.tar.gz" -C "$scratch/registry"
    touch "$scratch/registry/version-$REGISTRY_VERSION"
    rm -rf "$CACHE/lib" "$CACHE/registry"
    mv "$scratch/lib" "$scratch/registry" "$CACHE/"
    rm -rf "$scratch"
}

# Below the usual ephemeral range, so that no outgoing connection takes the port between here and the bind.
free_port() {
    local port
    for _ in $(seq 200); do
        port=$((10000 + (RANDOM * 32768 + RANDOM) % 22000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    die "no free port found"
}

alive() { # alive DIR NAME: the process runs, and this script started it for DIR
    local pid args
    pid=$(cat "$1/$2.pid" 2>/dev/null) || return 1
    # Not every Debian has ps.
    args=$({ tr '\0' ' ' <"/proc/$pid/cmdline" || ps -ww -p "$pid" -o args=; } 2>/dev/null) || return 1
    case $args in *"-Ddacapo.test.dir=$1 "*) return 0 ;; *) return 1 ;; esac
}

# Starts the process in its own session: Ctrl-C during the tests must not kill their broker.
spawn() { # spawn DIR NAME COMMAND...
    local dir=$1 name=$2 detach=()
    shift 2
    command -v setsid >/dev/null 2>&1 && detach=(setsid)
    "${detach[@]}" sh -c 'echo $$ >"$1"; shift; exec "$@"' sh "$dir/$name.pid" "$@" \
        >>"$dir/$name.log" 2>&1 </dev/null &
    disown
}

# Sends one ApiVersions request (key 18, version 0): an open port does not prove that requests are served.
broker_answers() { # broker_answers PORT
    timeout 3 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" || exit 1
        printf "\0\0\0\012\0\022\0\0\0\0\0\001\377\377" >&3
        [ "$(head -c 8 <&3 | wc -c)" -eq 8 ]' "$1" 2>/dev/null
}

registry_answers() { # registry_answers PORT
    timeout 3 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" || exit 1
        printf "GET /health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n" >&3
        head -1 <&3 | grep -q " 200 "' "$1" 2>/dev/null
}

await() { # await DIR NAME CHECK PORT
    local deadline=$((SECONDS + READY_SECONDS))
    while ! "$3" "$4"; do
        if ! alive "$1" "$2" && [ -s "$1/$2.pid" ]; then return 1; fi
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.2
    done
}

start_broker() { # start_broker DIR PORT
    rm -f "$1/broker.pid"
    spawn "$1" broker java "-Xmx${DACAPO_KAFKA_HEAP:-768m}" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        "-Ddacapo.test.dir=$1" -cp "$CACHE/lib/*" kafka.Kafka "$1/server.properties"
    await "$1" broker broker_answers "$2"
}

start_registry() { # start_registry DIR PORT
    rm -f "$1/registry.pid"
    spawn "$1" registry env QUARKUS_HTTP_HOST=127.0.0.1 "QUARKUS_HTTP_PORT=$2" \
        java -Xmx400m "-Ddacapo.test.dir=$1" -jar "$CACHE/registry/apicurio-registry-app-$REGISTRY_VERSION-runner.jar"
}

server_properties() { # server_properties DIR PORT CONTROLLER_PORT
    cat <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$3
listeners=PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$3
advertised.listeners=PLAINTEXT://127.0.0.1:$2
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$1/data
# A single node cannot replicate.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# A restarted broker can register only after the session of its killed process has ended.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
# Tests should not wait for the initial rebalance delay, nor for a rare cleanup of timed-out transactions.
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# A misspelt topic is an error.
auto.create.topics.enable=false
PROPERTIES
}

prepare() { # prepare DIR: checks that DIR may be used; prints its absolute path
    mkdir -p "$1"
    local dir
    dir=$(cd "$1" && pwd)
    case $dir in *[[:space:]]*) die "the directory must have no blanks in its path: $dir" ;; esac
    ! alive "$dir" broker || die "a broker already runs in $dir (stop it first)"
    ! alive "$dir" registry || die "a registry already runs in $dir (stop it first)"
    [ ! -e "$dir/data" ] || die "$dir holds data of an earlier start: use restart-broker, or another directory"
    echo "$dir"
}

start_in() { # start_in DIR: a port may be taken between the check and the bind, hence the second and third attempt
    local dir=$1 attempt port registry_port
    for attempt in 1 2 3; do
        port=$(free_port)
        rm -rf "$dir/data"
        server_properties "$dir" "$port" "$(free_port)" >"$dir/server.properties"
        java -cp "$CACHE/lib/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=error kafka.tools.StorageTool format \
            -t "$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | tr -d '=')" -c "$dir/server.properties" >"$dir/format.log" 2>&1 ||
            { cat "$dir/format.log" >&2; die "the log directory could not be formatted"; }
        registry_port=$(free_port)
        start_registry "$dir" "$registry_port"
        if start_broker "$dir" "$port" && await "$dir" registry registry_answers "$registry_port"; then
            printf 'KAFKA_BOOTSTRAP=127.0.0.1:%s\nREGISTRY_URL=http://127.0.0.1:%s/apis/ccompat/v7\n' \
                "$port" "$registry_port" >"$dir/endpoints.env"
            return
        fi
        say "attempt $attempt failed; last lines of $dir/broker.log and registry.log:"
        tail -5 "$dir/broker.log" "$dir/registry.log" >&2
        stop_in "$dir"
    done
    die "the broker or the registry did not answer within $READY_SECONDS s"
}

end_process() { # end_process DIR NAME SIGNAL
    alive "$1" "$2" || { rm -f "$1/$2.pid"; return 0; }
    local pid deadline=$((SECONDS + 20))
    pid=$(cat "$1/$2.pid")
    kill "-$3" "$pid" 2>/dev/null || true
    while alive "$1" "$2"; do
        [ "$SECONDS" -lt "$deadline" ] || { kill -KILL "$pid" 2>/dev/null || true; }
        sleep 0.1
    done
    rm -f "$1/$2.pid"
}

stop_in() { end_process "$1" registry TERM; end_process "$1" broker TERM; }

port_of() { sed -n 's|^listeners=PLAINTEXT://127.0.0.1:\([0-9]*\),.*|\1|p' "$1/server.properties"; }

started_dir() { # started_dir DIR: absolute path of a directory that `start` filled
    [ -n "${1:-}" ] || usage
    [ -f "$1/server.properties" ] || die "$1 was not created by 'kafka.sh start'"
    (cd "$1" && pwd)
}

cmd_start() {
    fetch
    local dir
    dir=$(prepare "${1:-$(mktemp -d "${TMPDIR:-/tmp}/dacapo-kafka.XXXXXX")}")
    start_in "$dir"
    echo "DIR=$dir"
    cat "$dir/endpoints.env"
}

cmd_restart_broker() {
    local dir
    dir=$(started_dir "${1:-}")
    end_process "$dir" broker TERM
    start_broker "$dir" "$(port_of "$dir")" || { tail -20 "$dir/broker.log" >&2; die "the broker did not restart"; }
}

signal_broker() { # signal_broker DIR SIGNAL
    local dir
    dir=$(started_dir "$1")
    alive "$dir" broker || die "no broker runs in $dir"
    kill "-$2" "$(cat "$dir/broker.pid")"
}

cmd_run() {
    [ "${1:-}" = "--" ] && [ $# -gt 1 ] || usage
    shift
    fetch
    local code=0
    RUN_DIR=$(prepare "$(mktemp -d "${TMPDIR:-/tmp}/dacapo-kafka.XXXXXX")")
    trap 'stop_in "$RUN_DIR"; rm -rf "$RUN_DIR"' EXIT
    trap 'exit 130' INT TERM
    start_in "$RUN_DIR"
    # shellcheck disable=SC1091
    . "$RUN_DIR/endpoints.env"
    DACAPO_TEST_KAFKA=$KAFKA_BOOTSTRAP DACAPO_TEST_REGISTRY=$REGISTRY_URL DACAPO_TEST_KAFKA_DIR=$RUN_DIR "$@" || code=$?
    exit "$code"
}

cmd_tool() {
    [ $# -ge 1 ] || usage
    fetch
    local class=$1
    shift
    case $class in org.* | kafka.*) ;; *) class=org.apache.kafka.tools.$class ;; esac
    exec java -Xmx256m -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$CACHE/lib/*" "$class" "$@"
}

[ $# -ge 1 ] || usage
command=$1
shift
case $command in
    fetch) fetch ;;
    start) cmd_start "$@" ;;
    stop) dir=$(started_dir "${1:-}") && stop_in "$dir" ;;
    kill-broker) dir=$(started_dir "${1:-}") && end_process "$dir" broker KILL ;;
    freeze-broker) signal_broker "${1:-}" STOP ;;
    thaw-broker) signal_broker "${1:-}" CONT ;;
    restart-broker) cmd_restart_broker "$@" ;;
    tool) cmd_tool "$@" ;;
    run) cmd_run "$@" ;;
    *) usage ;;
esac
