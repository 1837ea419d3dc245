"""A device in one file: sends readings, keeps what is not acknowledged, sends it again.

    pip install websockets
    python device.py ws://127.0.0.1:7400 pump-7 --count 100

A real device keeps `session`, `next_seq` and the unacknowledged messages over a reboot; this one
keeps them in memory, so they live as long as the program. See docs/protocol.md.
"""

import argparse
import collections
import json
import math
import random
import sys
import time

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

SUBPROTOCOL = "forebay.v1.json"


class Device:
    def __init__(self, url, name):
        self.url = f"{url}/v1/ingest/{name}"
        # Drawn together with the counter: (device, session, seq) names a message for ever.
        self.session = random.getrandbits(53)
        self.next_seq = 1
        self.unacked = collections.OrderedDict()
        self.rejected = 0

    def run(self, readings, deadline):
        """Sends every reading and returns once all are acknowledged."""
        readings = iter(readings)
        wait = 0.1
        while True:
            try:
                with connect(self.url, subprotocols=[SUBPROTOCOL], open_timeout=5) as socket:
                    wait = 0.1
                    if self.converse(socket, readings):
                        return
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError) as error:
                print(f"connection lost: {error}", file=sys.stderr)
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(self.unacked)} messages were never acknowledged")
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, 5.0)

    def converse(self, socket, readings):
        """Speaks over one connection; true once there is nothing left to send or to wait for."""
        oldest = next(iter(self.unacked), self.next_seq)
        socket.send(json.dumps({"session": self.session, "next_seq": oldest}))
        welcome = json.loads(socket.recv(timeout=5))
        credit = welcome["credit"]
        self.acknowledge(welcome["acked"] or 0)
        for message in self.unacked.values():
            socket.send(message)
        while True:
            ended = False
            while len(self.unacked) < credit and not ended:
                reading = next(readings, None)
                ended = reading is None
                if not ended:
                    socket.send(self.message(reading))
            if not self.unacked:
                return True
            answer = json.loads(socket.recv(timeout=30))
            credit = answer.get("credit", credit)
            if "ack" in answer:
                self.acknowledge(answer["ack"])
            elif "nack" in answer:
                # Go back: everything from there on is sent again, in order.
                time.sleep(answer["retry_ms"] / 1000)
                back = answer.get("expect", answer["nack"])
                for seq, message in self.unacked.items():
                    if seq >= back:
                        socket.send(message)
            elif "reason" in answer:
                self.rejected += 1
                print(f"message {answer['seq']} refused: {answer['reason']}", file=sys.stderr)

    def message(self, reading):
        """Numbers a reading and keeps it until it is acknowledged."""
        seq, self.next_seq = self.next_seq, self.next_seq + 1
        self.unacked[seq] = json.dumps({"seq": seq, "readings": [reading]})
        return self.unacked[seq]

    def acknowledge(self, ack):
        """Acks are cumulative: everything up to this number is safe."""
        while self.unacked and next(iter(self.unacked)) <= ack:
            self.unacked.popitem(last=False)


def readings(count):
    """A slow wave around 21 degrees."""
    for step in range(count):
        yield {
            "key": "temperature",
            "value": 21.0 + math.sin(step / 10),
            "unit": "Cel",
            "time": time.time_ns() // 1000,
        }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url", help="front, such as ws://127.0.0.1:7400")
    parser.add_argument("device", help="device id")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30, help="give up after this long")
    options = parser.parse_args()
    device = Device(options.url, options.device)
    device.run(readings(options.count), time.monotonic() + options.seconds)
    print(json.dumps({
        "device": options.device,
        "session": device.session,
        "acked": device.next_seq - 1,
        "rejected": device.rejected,
    }))


if __name__ == "__main__":
    main()
