"""Headers as any client may write them, on librdkafka's mock cluster."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import files
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from arroyo_sync.kafka.headers import headers_of
from arroyo_sync.leaders.commit_log.batch_decoder import BatchDecoder
from arroyo_sync.status.commit_log import record_of

TIMEOUT_SECONDS = 30.0
WARMING_CALLS = 6_000
"""After so many the interpreter has specialised a call."""
NO_TEXT = b"\xff"
KEY = b"events:0:g"


class CProducer:
    """One that speaks librdkafka's own language, since the Python client takes names only that are text."""

    PRODUCER, COPY = 0, 2
    END, TOPIC, PARTITION, VALUE, KEY, FLAGS, HEADER = 0, 1, 3, 4, 5, 7, 9

    def __init__(self, servers: str) -> None:
        (library,) = (
            each for each in files("confluent-kafka") or () if each.name.startswith("librdkafka") and ".so" in each.name
        )
        self._c = ctypes.CDLL(str(Path(str(library.locate()))))
        for function in ("rd_kafka_conf_new", "rd_kafka_new"):
            getattr(self._c, function).restype = ctypes.c_void_p
        conf = ctypes.c_void_p(self._c.rd_kafka_conf_new())
        error = ctypes.create_string_buffer(512)
        size = ctypes.c_size_t(len(error))
        assert self._c.rd_kafka_conf_set(conf, b"bootstrap.servers", servers.encode(), error, size) == 0, error.value
        self._client = ctypes.c_void_p(self._c.rd_kafka_new(self.PRODUCER, conf, error, size))

    def produce(self, value: bytes, header: bytes) -> None:
        failed = self._c.rd_kafka_producev(
            self._client,
            *(self.TOPIC, b"log", self.PARTITION, ctypes.c_int32(0), self.FLAGS, self.COPY),
            *(self.KEY, KEY, ctypes.c_size_t(len(KEY)), self.VALUE, value, ctypes.c_size_t(len(value))),
            *(self.HEADER, header, b"v", ctypes.c_ssize_t(1)),
            self.END,
        )
        assert failed == 0

    def close(self) -> None:
        assert self._c.rd_kafka_flush(self._client, int(TIMEOUT_SECONDS * 1000)) == 0
        self._c.rd_kafka_destroy(self._client)


@pytest.fixture
def servers() -> Iterator[str]:
    """A mock cluster."""
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
    brokers = producer.list_topics(timeout=TIMEOUT_SECONDS).brokers.values()
    yield ",".join(f"{each.host}:{each.port}" for each in brokers)
    producer.flush(0)  # the cluster lives as long as its client


def consumed(servers: str, names: Sequence[bytes]) -> list[Message]:
    """Records of the topic ``log``, each with a header of this name."""
    producer = CProducer(servers)
    for index, name in enumerate(names):
        producer.produce(b"%d" % index, name)
    producer.close()
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "g", "log_level": 0})
    try:
        consumer.assign([TopicPartition("log", 0, 0)])
        messages: list[Message] = []
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while len(messages) < len(names) and time.monotonic() < deadline:
            messages += consumer.consume(len(names), 0.5)
        assert [each.error() for each in messages] == [None] * len(names)
        return messages
    finally:
        consumer.close()


def test_a_name_that_is_no_text_hides_the_headers_of_its_record_alone(servers: str) -> None:
    """Also once the interpreter has seen thousands of records: it used to be a segmentation fault then."""
    strange, *others = consumed(servers, [NO_TEXT, *[b"name"] * WARMING_CALLS, NO_TEXT])
    last = others.pop()
    assert headers_of(strange) is None
    assert all(headers_of(each) == [("name", b"v")] for each in others)
    assert headers_of(last) is None


def test_what_such_a_record_reports_counts(servers: str) -> None:
    """Of a commit log: its key and value are readable. A second reader, the command's, shows it as well."""
    messages = consumed(servers, [*[b"name"] * WARMING_CALLS, NO_TEXT, NO_TEXT])
    decoder = BatchDecoder("log", ["g"], time.monotonic)
    for each in messages[:-1]:
        (report,) = decoder.decode([each]).reports
    assert report.offset == WARMING_CALLS
    for each in [*messages[:-2], messages[-1]]:
        record = record_of(each)
    assert (record.group, record.offset, record.refused) == ("g", WARMING_CALLS + 1, None)
