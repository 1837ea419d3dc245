"""The frames between Forebay's tiers, read and written: see docs/protocol.md, "Frames between tiers"."""

import struct

# Magic, version, kind, round, queue, session, prev, base, count, body length, body checksum.
HEADER = struct.Struct("<4sBBH16sQQQIII")
HEADER_BYTES = 64
MAGIC, VERSION = b"FBY1", 1
HELLO, WELCOME, BATCH, ACK, NACK, PING, PONG, REFUSE = range(1, 9)
DATA, HEAD = 16, 17
FETCH, RECORDS, END, OPEN, PREPARE, COMMIT, ANSWER = range(32, 39)


def _crc_of(byte):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


CRC_TABLE = [_crc_of(byte) for byte in range(256)]


def crc32c(data):
    """CRC-32C; a library such as google-crc32c does the same a thousand times faster."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Frame:
    """One frame; the queue is 16 bytes, all other fields are numbers."""

    def __init__(self, kind, queue=bytes(16), session=0, prev=0, base=0, count=0, body=b"",
                 round=0, version=VERSION):
        self.kind, self.queue, self.session, self.round = kind, queue, session, round
        self.prev, self.base, self.count, self.body = prev, base, count, body
        self.version = version

    def pack(self):
        head = HEADER.pack(MAGIC, self.version, self.kind, self.round, self.queue, self.session,
                           self.prev, self.base, self.count, len(self.body), crc32c(self.body))
        return head + struct.pack("<I", crc32c(head)) + self.body

    def records(self):
        """The records of a batch: number, time in microseconds, payload."""
        at, body = 0, self.body
        for seq in range(self.base, self.base + self.count):
            length, time_us = struct.unpack_from("<IQ", body, at)
            yield seq, time_us, body[at + 12:at + 12 + length]
            at += 12 + length


def read(raw):
    """Reads a frame; ValueError says what is wrong with it."""
    if len(raw) < HEADER_BYTES or raw[:4] != MAGIC:
        raise ValueError("no frame of this protocol")
    if raw[4] != VERSION:
        raise ValueError(f"version {raw[4]} is not read here")
    _, _, kind, round, queue, session, prev, base, count, length, crc = HEADER.unpack_from(raw)
    body = raw[HEADER_BYTES:]
    if struct.unpack_from("<I", raw, 60)[0] != crc32c(raw[:60]):
        raise ValueError("header checksum does not match")
    if length != len(body) or crc != crc32c(body):
        raise ValueError("length or checksum of the body does not match")
    return Frame(kind, queue, session, prev, base, count, body, round)


def pack_records(payloads, time_us=0):
    """The body of a batch."""
    return b"".join(struct.pack("<IQ", len(p), time_us) + p for p in payloads)
