#!/usr/bin/env bash
# Checks a Kafka and a registry with common clients: kcat, Apache Kafka's Java tools, Confluent's Python client.
#
#   scripts/stock-clients.sh BOOTSTRAP REGISTRY [DATA_DIR]
#
# Prints one line per check, then `N passed, N failed, N skipped`. With DATA_DIR, the broker's data directory, the Java tool
# that dumps log segments reads the segments of the broker. Checks of a missing program are reported as skipped;
# DACAPO_STOCK_REQUIRED=1 makes that a failure (for CI). Needs: kcat (Debian: kcat), Java and Maven (see kafka.sh),
# Python 3 with venv. Exit codes: 0 all passed, 1 something failed, 2 wrong usage.
set -u

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${DACAPO_KAFKA_CACHE:-$ROOT/.kafka}
[ $# -ge 2 ] || { sed -n '2,/^set -u/{/^set -u/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}" >&2; exit 2; }
BOOTSTRAP=$1
REGISTRY=${2%/}
DATA_DIR=${3:-}
RUN=stock-$(date +%s)-$$
WORK=$(mktemp -d "${TMPDIR:-/tmp}/dacapo-stock.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
PASSED=0 FAILED=0 SKIPPED=0

check() { # check SENTENCE FUNCTION
    local code
    (set -e; "$2") >"$WORK/out" 2>"$WORK/err"
    code=$?
    if [ "$code" -eq 0 ]; then
        PASSED=$((PASSED + 1))
        echo "pass $1"
    else
        FAILED=$((FAILED + 1))
        echo "FAIL $1"
        tail -n 15 "$WORK/out" "$WORK/err" | sed 's/^/     /'
    fi
}

skip() { # skip WHAT WHY
    if [ "${DACAPO_STOCK_REQUIRED:-0}" = 1 ]; then
        FAILED=$((FAILED + 1))
        echo "FAIL $1: $2"
    else
        SKIPPED=$((SKIPPED + 1))
        echo "skip $1: $2"
    fi
}

equal() { # equal SEEN WANTED
    [ "$1" = "$2" ] || { printf 'saw:\n%s\nwanted:\n%s\n' "$1" "$2"; return 1; }
}

has() { # has TEXT PATTERN
    printf '%s\n' "$1" | grep -Eq -- "$2" || { printf 'not found: %s\nin:\n%s\n' "$2" "$1"; return 1; }
}

tool() { "$ROOT/scripts/kafka.sh" tool "$@"; }
topics() { tool TopicCommand --bootstrap-server "$BOOTSTRAP" "$@"; }
groups() { tool consumer.group.ConsumerGroupCommand --bootstrap-server "$BOOTSTRAP" "$@"; }
kcat_() { timeout 60 kcat -b "$BOOTSTRAP" "$@"; }

# --- kcat (librdkafka) ---------------------------------------------------------------------------------------------

kcat_makes_and_lists() {
    topics --create --topic "$RUN-kcat" --partitions 3 >/dev/null
    listing=$(kcat_ -L -t "$RUN-kcat")
    has "$listing" "topic \"$RUN-kcat\" with 3 partitions"
    has "$listing" 'broker [0-9]+ at '
}

kcat_round_trip() {
    printf 'k1|one\nk2|two\n' | kcat_ -P -t "$RUN-kcat" -p 1 -K '|' -H ce_type=a.b.C -H ce_id=7
    equal "$(kcat_ -C -t "$RUN-kcat" -p 1 -o beginning -e -q -f '%k=%s %h %p/%o\n')" \
        "$(printf 'k1=one ce_type=a.b.C,ce_id=7 1/0\nk2=two ce_type=a.b.C,ce_id=7 1/1')"
}

kcat_codecs() {
    for codec in gzip snappy lz4 zstd; do
        seq 1 2000 | kcat_ -P -t "$RUN-kcat" -p 2 -z "$codec"
    done
    kcat_ -C -t "$RUN-kcat" -p 2 -o beginning -e -q >"$WORK/codecs"
    { for _ in 1 2 3 4; do seq 1 2000; done; } | cmp - "$WORK/codecs"
}

kcat_by_time() {
    has "$(kcat_ -Q -t "$RUN-kcat:1:1000")" '1.*offset 0$'
}

kcat_group() {
    equal "$(kcat_ -G "$RUN-kcat-group" -c 4 -q -X auto.offset.reset=earliest -X session.timeout.ms=6000 "$RUN-kcat" |
        wc -l | tr -d ' ')" 4
}

# --- Apache Kafka's Java tools -------------------------------------------------------------------------------------

java_topics() {
    topics --create --topic "$RUN-java" --partitions 2 --config retention.ms=-1 --config max.message.bytes=2000000
    described=$(topics --describe --topic "$RUN-java")
    has "$described" 'PartitionCount: 2'
    has "$described" 'max.message.bytes=2000000'
    has "$described" 'Partition: 1.*Leader: [0-9]+'
    has "$(topics --list)" "^$RUN-java\$"
    topics --alter --topic "$RUN-java" --partitions 3
    has "$(topics --describe --topic "$RUN-java")" 'PartitionCount: 3'
}

java_configs() {
    tool kafka.admin.ConfigCommand --bootstrap-server "$BOOTSTRAP" --alter --entity-type topics \
        --entity-name "$RUN-java" --add-config retention.ms=86400000
    described=$(tool kafka.admin.ConfigCommand --bootstrap-server "$BOOTSTRAP" --describe --entity-type topics --entity-name "$RUN-java")
    has "$described" 'retention.ms=86400000'
    has "$described" 'max.message.bytes=2000000'
}

java_console() {
    printf 'ce_type:a.b.C,ce_id:1\tk1\tfirst\nce_type:a.b.C,ce_id:2\tk1\tsecond\n' |
        tool ConsoleProducer --bootstrap-server "$BOOTSTRAP" --topic "$RUN-java" \
            --reader-property parse.key=true --reader-property parse.headers=true
    seen=$(tool consumer.ConsoleConsumer --bootstrap-server "$BOOTSTRAP" --topic "$RUN-java" --group "$RUN-java-group" \
        --from-beginning --max-messages 2 --timeout-ms 30000 --formatter-property print.key=true \
        --formatter-property print.headers=true)
    equal "$seen" "$(printf 'ce_type:a.b.C,ce_id:1\tk1\tfirst\nce_type:a.b.C,ce_id:2\tk1\tsecond')"
}

java_reads_kcat() {
    seen=$(tool consumer.ConsoleConsumer --bootstrap-server "$BOOTSTRAP" --topic "$RUN-kcat" --partition 2 \
        --offset earliest --max-messages 8000 --timeout-ms 30000 --isolation-level read_committed | sort -n | uniq -c)
    equal "$(printf '%s\n' "$seen" | awk '$1 != 4' | wc -l | tr -d ' ')" 0
    equal "$(printf '%s\n' "$seen" | wc -l | tr -d ' ')" 2000
}

java_offsets() {
    for place in "-1 2" "-2 0"; do
        set -- $place
        seen=$(tool GetOffsetShell --bootstrap-server "$BOOTSTRAP" --topic "$RUN-java" --time "$1" | awk -F: '{ sum += $3 } END { print sum }')
        equal "$seen" "$2"
    done
}

java_groups() {
    has "$(groups --list)" "^$RUN-java-group\$"
    described=$(groups --describe --group "$RUN-java-group")
    equal "$(printf '%s\n' "$described" | awk -v topic="$RUN-java" '$2 == topic { lag += $6 } END { print lag }')" 0
    has "$(groups --describe --group "$RUN-java-group" --state)" 'Empty'
    groups --reset-offsets --group "$RUN-java-group" --topic "$RUN-java" --to-earliest --execute
    described=$(groups --describe --group "$RUN-java-group")
    equal "$(printf '%s\n' "$described" | awk -v topic="$RUN-java" '$2 == topic { lag += $6 } END { print lag }')" 2
    groups --delete --group "$RUN-java-group"
    if groups --list | grep -q "^$RUN-java-group\$"; then echo "the group is still listed"; return 1; fi
}

java_transactions() {
    topics --create --topic "$RUN-txn" --partitions 1 >/dev/null
    has "$(tool ProducerPerformance --bootstrap-server "$BOOTSTRAP" --topic "$RUN-txn" --num-records 5000 --record-size 100 \
        --throughput -1 --transactional-id "$RUN-txn" --transaction-duration-ms 50)" '5000 records sent'
    seen=$(tool consumer.ConsoleConsumer --bootstrap-server "$BOOTSTRAP" --topic "$RUN-txn" --from-beginning \
        --max-messages 5000 --timeout-ms 30000 --isolation-level read_committed | wc -l | tr -d ' ')
    equal "$seen" 5000
    has "$(tool TransactionsCommand --bootstrap-server "$BOOTSTRAP" list)" "$RUN-txn.*CompleteCommit"
}

java_delete_records() {
    printf '{"version":1,"partitions":[{"topic":"%s","partition":0,"offset":1000}]}' "$RUN-txn" >"$WORK/delete.json"
    has "$(tool DeleteRecordsCommand --bootstrap-server "$BOOTSTRAP" --offset-json-file "$WORK/delete.json")" 'low_watermark: 1000'
    has "$(tool GetOffsetShell --bootstrap-server "$BOOTSTRAP" --topic "$RUN-txn" --time -2)" ':0:1000$'
}

java_segments() {
    segment=$(find "$DATA_DIR" -path "*$RUN-kcat*" -name '*.log' -size +0 | sort | tail -1)
    [ -n "$segment" ] || { echo "no segment of $RUN-kcat below $DATA_DIR"; return 1; }
    tool DumpLogSegments --files "$segment" --deep-iteration --print-data-log >"$WORK/dump"
    has "$(head -5 "$WORK/dump")" 'baseOffset: 0 '
    equal "$(grep -c 'isvalid: true' "$WORK/dump")" "$(grep -c 'baseOffset:' "$WORK/dump")"
    # The transactional topic too: the tool must recognise its markers.
    segment=$(find "$DATA_DIR" -path "*$RUN-txn*" -name '*.log' -size +0 | sort | head -1)
    tool DumpLogSegments --files "$segment" --deep-iteration >"$WORK/dump"
    has "$(cat "$WORK/dump")" 'endTxnMarker: COMMIT'
    if grep -Ei 'corrupt|invalid|isvalid: false' "$WORK/dump"; then return 1; fi
}

java_deletes() {
    if groups --list | grep -q "^$RUN-kcat-group\$"; then groups --delete --group "$RUN-kcat-group"; fi
    for topic in "$RUN-kcat" "$RUN-java" "$RUN-txn"; do
        topics --delete --topic "$topic"
    done
    deadline=$((SECONDS + 20))
    while topics --list | grep -q "^$RUN"; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "a deleted topic is still listed"; return 1; }
    done
}

# --- Confluent's Python client -------------------------------------------------------------------------------------

PYTHON=$CACHE/venv/bin/python
python_ready() {
    # An incomplete environment of an interrupted install is replaced.
    [ -x "$PYTHON" ] && "$PYTHON" -c 'import confluent_kafka.schema_registry.avro' 2>/dev/null && return
    mkdir -p "$CACHE" && rm -rf "$CACHE/venv" && python3 -m venv "$CACHE/venv" &&
        "$PYTHON" -m pip install -q --disable-pip-version-check -r "$ROOT/conformance/stock/requirements.txt"
}

python_avro() {
    kcat_topic=$RUN-avro
    topics --create --topic "$kcat_topic" --partitions 1 >/dev/null
    "$PYTHON" "$ROOT/conformance/stock/avro_round_trip.py" "$BOOTSTRAP" "$REGISTRY" "$kcat_topic"
    topics --delete --topic "$kcat_topic"
}

# The Java tools create the topics for the other clients, so every check needs Java.
if ! "$ROOT/scripts/kafka.sh" fetch; then
    skip "everything" "Java or Maven is missing"
    echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
    [ "$FAILED" -eq 0 ]
    exit
fi
if command -v kcat >/dev/null 2>&1; then
    check "kcat lists a topic that the Java tools created" kcat_makes_and_lists
    check "kcat writes and reads keys and headers" kcat_round_trip
    check "kcat reads back gzip, snappy, lz4 and zstd" kcat_codecs
    check "kcat finds an offset by time" kcat_by_time
    check "kcat reads in a group" kcat_group
    HAVE_KCAT=1
else
    skip "kcat" "not installed (Debian: apt install kcat)"
    HAVE_KCAT=0
fi
check "the Java tools create, describe and extend a topic" java_topics
check "the Java tools alter one config and keep the others" java_configs
check "the Java console writes and reads keys and headers" java_console
[ "$HAVE_KCAT" = 0 ] || check "the Java console reads what kcat compressed" java_reads_kcat
check "the Java tools list the first and last offsets" java_offsets
check "the Java tools describe, reset and delete a group" java_groups
check "a Java producer's transactions are read committed and listed" java_transactions
if [ -n "$DATA_DIR" ] && [ "$HAVE_KCAT" = 1 ]; then
    check "the Java tool that dumps log segments finds no corruption" java_segments
fi
check "the Java tools delete records" java_delete_records
if command -v python3 >/dev/null 2>&1 && python_ready >"$WORK/pip" 2>&1; then
    check "Confluent's Python serializers register, write and read two versions" python_avro
else
    skip "Confluent's Python client" "no Python environment could be created (Debian: apt install python3-venv)"
fi
[ "$HAVE_KCAT" = 1 ] || topics --create --topic "$RUN-kcat" --partitions 1 >/dev/null
check "the Java tools delete topics" java_deletes
echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
[ "$FAILED" -eq 0 ]
