"""A source on libzmq's DEALER: what it is told, as lines of JSON. Arguments: endpoint, entries."""

import json
import struct
import sys

import zmq
from forebay_frames import (ACK, BATCH, HELLO, NACK, PING, PONG, REFUSE, WELCOME, Frame,
                            pack_records, read)

endpoint, entries = sys.argv[1], int(sys.argv[2])
QUEUE, SESSION, EPOCH = b"a source in pyth", 77, 1 << 40
dealer = zmq.Context.instance().socket(zmq.DEALER)
dealer.rcvtimeo = 10_000
dealer.connect(endpoint)


def ask(frame, *kinds):
    dealer.send(frame.pack())
    return answer(*kinds)


def answer(*kinds):
    while True:
        frame = read(dealer.recv())
        if frame.kind in kinds:
            return frame


def tell(what, **fields):
    print(json.dumps({"what": what, **fields}), flush=True)


def refusal(frame):
    code, oldest, newest, _ = struct.unpack_from("<HBBI", frame.body)
    return {"code": code, "oldest": oldest, "newest": newest, "reason": frame.body[8:].decode()}


def hello(partitions=0):
    # The level (2: disk), the number the next append gets, the hash of the partition map.
    body = struct.pack("<B7xQQ", 2, EPOCH + entries + 1, partitions)
    return Frame(HELLO, QUEUE, SESSION, 0, EPOCH + 1, body=body)


tell("version", **refusal(ask(Frame(HELLO, QUEUE, SESSION, version=9), REFUSE)))
tell("partitions", **refusal(ask(hello(partitions=5), REFUSE)))
welcome = ask(hello(), WELCOME)
tell("welcome", durable=welcome.prev, level=welcome.body[0], credit=welcome.count)
# A batch after one that was lost: told to go back, once.
late = Frame(BATCH, QUEUE, SESSION, EPOCH + 5, EPOCH + 6, 1, pack_records([b"late"]))
nack = ask(late, NACK)
tell("nack", durable=nack.prev, code=nack.body[0])
prev = 0
for first in range(0, entries, 100):
    payloads = [b"entry %d" % n for n in range(first, min(first + 100, entries))]
    body = pack_records(payloads)
    dealer.send(Frame(BATCH, QUEUE, SESSION, prev, EPOCH + first + 1, len(payloads), body,
                      round=1).pack())
    prev = EPOCH + first + len(payloads)
while answer(ACK).prev != prev:
    pass
pong = ask(Frame(PING, QUEUE, SESSION, prev, round=1), PONG)
tell("done", acked=pong.prev - EPOCH)
