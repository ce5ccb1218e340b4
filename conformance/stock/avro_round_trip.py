"""Writes and reads Avro records with Confluent's own Python client and serializers.

Usage: avro_round_trip.py BOOTSTRAP REGISTRY TOPIC

Registers two versions of a schema under its record name, writes with AvroSerializer, reads with AvroDeserializer, and
asserts the results. Prints one line per passed expectation; exits with 1 and a message at the first failed one.
"""

import json
import sys

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

DEADLINE_S = 30


def schema(name, *more):
    fields = [{"name": "order_id", "type": "string"}, {"name": "amount_minor", "type": "long"}, *more]
    return json.dumps({"type": "record", "name": name, "namespace": "com.example.stock", "fields": fields})


def expect(condition, what):
    if not condition:
        sys.exit(f"failed: {what}")
    print(what)


def serializer(registry, text, **settings):
    return AvroSerializer(registry, text, conf={"subject.name.strategy": record_subject_name_strategy, **settings})


def write(bootstrap, topic, serialize, values):
    failures = []
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5})
    for value in values:
        payload = serialize(value, SerializationContext(topic, MessageField.VALUE))
        producer.produce(
            topic,
            key=value["order_id"],
            value=payload,
            headers={"ce_type": "com.example.stock.Order"},
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
    undelivered = producer.flush(DEADLINE_S)
    if failures or undelivered:
        sys.exit(f"not delivered: {failures}, {undelivered} without an answer")


def read(bootstrap, topic, count):
    settings = {"bootstrap.servers": bootstrap, "group.id": f"{topic}-reader", "enable.auto.commit": False}
    consumer = Consumer({**settings, "isolation.level": "read_committed"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages = []
    while len(messages) < count:
        message = consumer.poll(DEADLINE_S)
        if message is None or message.error():
            sys.exit(f"after {len(messages)} records: {message.error() if message else 'nothing came'}")
        messages.append(message)
    consumer.close()
    return messages


def main(bootstrap, address, topic):
    registry = SchemaRegistryClient({"url": address})
    name = "Order_" + "".join(c if c.isalnum() else "_" for c in topic)
    subject = f"com.example.stock.{name}"
    first = schema(name)
    second = schema(name, {"name": "note", "type": "string", "default": "none"})

    # The way of producers that may not register: everything is there before they start.
    first_id = registry.register_schema(subject, Schema(first, "AVRO"))
    registry.set_compatibility(subject, "FULL_TRANSITIVE")
    second_id = registry.register_schema(subject, Schema(second, "AVRO"))
    expect(first_id != second_id, f"registered ids {first_id} and {second_id}")
    expect(registry.get_versions(subject) == [1, 2], "the subject has versions 1 and 2")
    expect(registry.get_latest_version(subject).schema_id == second_id, "the latest is the second")
    expect(registry.lookup_schema(subject, Schema(first, "AVRO")).schema_id == first_id, "the first is found by its text")
    expect(subject in registry.get_subjects(), "the subject is listed")
    expect(registry.get_compatibility(subject) == "FULL_TRANSITIVE", "the level is FULL_TRANSITIVE")
    broken = schema(name, {"name": "required", "type": "string"})
    expect(not registry.test_compatibility(subject, Schema(broken, "AVRO")), "a required field is not compatible")
    try:
        registry.register_schema(subject, Schema(broken, "AVRO"))
        sys.exit("failed: a required field is refused")
    except SchemaRegistryError as error:
        expect(error.http_status_code == 409, "a required field is refused with 409")

    old = [{"order_id": f"o-{i}", "amount_minor": i * 100} for i in range(5)]
    new = [{"order_id": f"n-{i}", "amount_minor": -i, "note": "ünïcode ☂"} for i in range(5)]
    write(bootstrap, topic, serializer(registry, first, **{"auto.register.schemas": False}), old)
    write(bootstrap, topic, serializer(registry, second, **{"auto.register.schemas": False}), new)
    messages = read(bootstrap, topic, 10)
    ids = [int.from_bytes(message.value()[1:5], "big") for message in messages]
    expect(ids == [first_id] * 5 + [second_id] * 5, "each record carries the id of its schema")
    expect(all(m.headers() == [("ce_type", b"com.example.stock.Order")] for m in messages), "headers come back")

    # A fresh client, so that nothing is answered from a cache; the newest schema reads both versions.
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": address}), second)
    values = [deserialize(m.value(), SerializationContext(topic, MessageField.VALUE)) for m in messages]
    expect(values == [{**value, "note": "none"} for value in old] + new, "the second version reads both")

    # The way of producers that register by themselves.
    other = schema(name + "_auto")
    write(bootstrap, topic, serializer(registry, other), [{"order_id": "auto", "amount_minor": 1}])
    last = read(bootstrap, topic, 11)[-1]
    value = AvroDeserializer(SchemaRegistryClient({"url": address}))(last.value(), SerializationContext(topic, MessageField.VALUE))
    expect(value["order_id"] == "auto", "a schema registered on the way decodes by its id alone")

    for name_of in (subject, subject + "_auto"):
        registry.delete_subject(name_of)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
