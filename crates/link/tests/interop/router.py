"""A receiver on libzmq's ROUTER: acks what it prints, as lines of JSON. Argument: `version` to
answer every hello in a version that does not exist yet, `refuse` to refuse our own."""

import json
import struct
import sys

import zmq
from forebay_frames import ACK, BATCH, HELLO, PING, PONG, REFUSE, WELCOME, Frame, read

mode = sys.argv[1] if len(sys.argv) > 1 else ""
router = zmq.Context.instance().socket(zmq.ROUTER)
port = router.bind_to_random_port("tcp://127.0.0.1")
print(json.dumps({"port": port}), flush=True)
durable, credit = 0, 1 << 20
while True:
    peer, raw = router.recv_multipart()
    frame = read(raw)

    def send(kind, **fields):
        answer = Frame(kind, frame.queue, frame.session, durable, count=credit, **fields)
        router.send_multipart([peer, answer.pack()])

    if mode == "version":
        send(WELCOME, body=struct.pack("<B7x", 2), version=2)
    elif mode == "refuse":
        send(REFUSE, body=struct.pack("<HBBI", 1, 2, 3, 0) + b"version 1 is too old")
    elif frame.kind == HELLO:
        send(WELCOME, body=struct.pack("<B7x", 2))
    elif frame.kind == PING:
        send(PONG)
    elif frame.kind == BATCH and frame.prev <= durable < frame.base:
        for seq, _, payload in frame.records():
            print(json.dumps({"seq": seq, "payload": payload.decode()}), flush=True)
            durable = seq
        send(ACK)
