"""Follows a middle's feed without a gap: what is published comes at once, what was missed is fetched.

    pip install pyzmq cbor2
    python feed_consumer.py tcp://127.0.0.1:7411 tcp://127.0.0.1:7412 --count 100
"""

import argparse
import secrets
import struct

import zmq
from forebay_frames import DATA, END, FETCH, RECORDS, Frame, read


class Consumer:
    def __init__(self, feed, fetch, position=0):
        context = zmq.Context.instance()
        self.sub, self.dealer = context.socket(zmq.SUB), context.socket(zmq.DEALER)
        self.sub.subscribe(b"forebay.feed.1")
        self.sub.connect(feed)
        self.dealer.connect(fetch)
        self.dealer.rcvtimeo = 3000
        # The last number we have of the queue we follow; keep both over a restart.
        self.queue, self.position = bytes(16), position

    def published(self):
        return read(self.sub.recv_multipart()[1])

    def follow(self):
        """Yields number and payload of every record, in order, each once."""
        while True:
            frame = self.published()
            if frame.queue != self.queue:  # the first, or the middle lost its disk
                self.position = 0 if self.queue != bytes(16) else self.position
                self.queue = frame.queue
            # DATA names the number before its first record, HEAD the last one there is.
            if (frame.prev if frame.kind == DATA else frame.base) > self.position:
                yield from self.mend()
            if frame.kind == DATA:
                yield from self.take(frame)

    def take(self, frame):
        for seq, _, payload in frame.records():
            if seq > self.position:
                self.position = seq
                yield seq, payload

    def mend(self):
        """Fetches what comes after our position until there is no more."""
        head = self.position + 1
        while head > self.position:
            session = secrets.randbits(64)
            self.dealer.send(Frame(FETCH, self.queue, session, self.position, count=1 << 20).pack())
            while True:
                try:
                    frame = read(self.dealer.recv())
                except zmq.Again:
                    break  # no answer: ask again
                if frame.session == session and frame.kind == RECORDS:
                    yield from self.take(frame)
                elif frame.session == session and frame.kind == END:
                    if frame.queue != self.queue:
                        return  # the log is another: what is published will say so
                    head, resume = frame.base, struct.unpack("<Q", frame.body)[0]
                    if resume > self.position:
                        print(f"records up to {resume} are gone", flush=True)
                        self.position = resume
                    break


def main():
    import cbor2

    parser = argparse.ArgumentParser()
    parser.add_argument("feed")
    parser.add_argument("fetch")
    parser.add_argument("--count", type=int, help="end after so many messages")
    options = parser.parse_args()
    count = 0
    for seq, payload in Consumer(options.feed, options.fetch).follow():
        if len(payload) > 24 and payload[24] != 0:  # else it only marks a position
            _, _, device, _, number, _, _, *message = cbor2.loads(payload[24:])
            print(f"{seq >> 40}:{seq & (1 << 40) - 1} {device} {number} {message}", flush=True)
            count += 1
        if count == options.count:
            return


if __name__ == "__main__":
    main()
