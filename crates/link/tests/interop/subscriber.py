"""A reader on libzmq's SUB and DEALER, on a bad day: of what is published to it, it loses two of
three. Prints what it has all the same. Arguments: feed, fetch, records."""

import json
import sys

from feed_consumer import Consumer


class Lossy(Consumer):
    lost = 0

    def published(self):
        while True:
            frame = super().published()
            if self.lost % 3 == 2:
                self.lost += 1
                return frame
            self.lost += 1


consumer = Lossy(sys.argv[1], sys.argv[2])
left = int(sys.argv[3])
for seq, payload in consumer.follow():
    print(json.dumps({"seq": seq, "payload": payload.decode()}), flush=True)
    left -= 1
    if left == 0:
        break
print(json.dumps({"lost": consumer.lost}), flush=True)
