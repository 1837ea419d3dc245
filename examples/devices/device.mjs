// A device in one file: sends readings, keeps what is not acknowledged, sends it again.
//
//     npm install ws
//     node device.mjs ws://127.0.0.1:7400 pump-7 100
//
// A real device keeps `session`, `nextSeq` and the unacknowledged messages over a reboot; this one
// keeps them in memory, so they live as long as the program. See docs/protocol.md.

import WebSocket from "ws";

const SUBPROTOCOL = "forebay.v1.json";

class Device {
  constructor(url, name) {
    this.url = `${url}/v1/ingest/${name}`;
    // Drawn together with the counter: (device, session, seq) names a message for ever.
    this.session = Math.floor(Math.random() * Number.MAX_SAFE_INTEGER);
    this.nextSeq = 1;
    this.unacked = new Map();
    this.rejected = 0;
  }

  // Sends every reading and returns once all are acknowledged.
  async run(readings, deadline) {
    let wait = 100;
    for (;;) {
      try {
        if (await this.converse(readings)) return;
        wait = 100;
      } catch (error) {
        console.error(`connection lost: ${error.message}`);
      }
      if (Date.now() > deadline) throw new Error(`${this.unacked.size} messages never acknowledged`);
      await new Promise((resume) => setTimeout(resume, wait * (0.5 + Math.random() / 2)));
      wait = Math.min(wait * 2, 5000);
    }
  }

  // Speaks over one connection; true once there is nothing left to send or to wait for.
  converse(readings) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(this.url, SUBPROTOCOL, { handshakeTimeout: 5000 });
      let credit = 0;
      const fill = () => {
        while (this.unacked.size < credit) {
          const { value, done } = readings.next();
          if (done) break;
          socket.send(this.message(value));
        }
        if (this.unacked.size === 0) {
          socket.close(1000);
          resolve(true);
        }
      };
      const sendFrom = (first) => {
        for (const [seq, message] of this.unacked) if (seq >= first) socket.send(message);
      };
      socket.on("open", () => {
        const [oldest = this.nextSeq] = this.unacked.keys();
        socket.send(JSON.stringify({ session: this.session, next_seq: oldest }));
      });
      socket.on("message", (text) => {
        const answer = JSON.parse(text);
        credit = answer.credit ?? credit;
        if ("acked" in answer) {
          this.acknowledge(answer.acked ?? 0);
          sendFrom(0);
        } else if ("ack" in answer) {
          this.acknowledge(answer.ack);
        } else if ("nack" in answer) {
          // Go back: everything from there on is sent again, in order.
          setTimeout(() => sendFrom(answer.expect ?? answer.nack), answer.retry_ms);
          return;
        } else if ("reason" in answer) {
          this.rejected += 1;
          console.error(`message ${answer.seq} refused: ${answer.reason}`);
        }
        fill();
      });
      socket.on("close", (code, reason) => reject(new Error(`closed with ${code} ${reason}`)));
      socket.on("error", reject);
    });
  }

  // Numbers a reading and keeps it until it is acknowledged.
  message(reading) {
    const seq = this.nextSeq++;
    const message = JSON.stringify({ seq, readings: [reading] });
    this.unacked.set(seq, message);
    return message;
  }

  // Acks are cumulative: everything up to this number is safe.
  acknowledge(ack) {
    for (const seq of this.unacked.keys()) {
      if (seq > ack) break;
      this.unacked.delete(seq);
    }
  }
}

// A slow wave around 21 degrees.
function* wave(count) {
  for (let step = 0; step < count; step += 1) {
    const value = 21.01 + Math.sin(step / 10);
    yield { key: "temperature", value, unit: "Cel", time: Date.now() * 1000 };
  }
}

const [url, name, count = "100"] = process.argv.slice(2);
if (!url || !name) {
  console.error("usage: node device.mjs URL DEVICE [COUNT]");
  process.exit(2);
}
const device = new Device(url, name);
await device.run(wave(Number(count)), Date.now() + 30_000);
console.log(JSON.stringify({
  device: name,
  session: device.session,
  acked: device.nextSeq - 1,
  rejected: device.rejected,
}));
