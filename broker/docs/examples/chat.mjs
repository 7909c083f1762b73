// Messages to another user and back: Hoopoe's messaging profile over MQTT 5 with MQTT.js.
//
//     node chat.mjs HOST PORT bob alice              waits, and ends when alice says bye
//     node chat.mjs HOST PORT alice bob hello bye    sends, and ends when bob has read all of it

import { randomUUID } from "node:crypto";
import mqtt from "mqtt";

const [host, port, me, peer, ...texts] = process.argv.slice(2);
let sentUpTo = 0;
let readUpTo = 0;
let openSends = texts.length;

const client = mqtt.connect(`mqtt://${host}:${port}`, {
  protocolVersion: 5,
  clientId: "web-example",
  username: me,
  password: process.env.CHAT_PASSWORD ?? "",
  // The session lasts a day: what comes meanwhile waits for this device.
  clean: false,
  properties: { sessionExpiryInterval: 24 * 3600 },
});

client.on("error", (error) => {
  console.error(`refused: ${error.message}`);
  process.exit(1);
});

function sendAll() {
  for (const text of texts) {
    // The same id again, over whatever connection, is the same message.
    client.publish(`im/u/${peer}/msg/${randomUUID()}`, text, { qos: 1 }, (error) => {
      if (error) throw error;
    });
  }
}

// PUBACK: the message is on the broker's disk; its place in the conversation is in here.
client.on("packetreceive", (packet) => {
  const seq = packet.cmd === "puback" && packet.properties?.userProperties?.["im-seq"];
  if (!seq) return;
  openSends -= 1;
  sentUpTo = Math.max(sentUpTo, Number(seq));
  console.log(`sent #${seq}`);
  lookWhetherAllIsRead();
});

function lookWhetherAllIsRead() {
  if (sentUpTo && openSends === 0 && readUpTo >= sentUpTo) {
    console.log(`read #${readUpTo}`);
    client.end();
  }
}

client.on("message", (topic, payload, packet) => {
  const [, , tree, ...rest] = topic.split("/");
  if (tree === "sys" && rest[0] === "hello") {
    console.log("ready");
    sendAll();
  } else if (tree === "in") {
    const header = packet.properties.userProperties;
    if (header["im-kind"]) return; // a recall, an edit, a reaction…: not in this example
    const seq = header["im-seq"];
    console.log(`#${seq} ${header["im-from"]}: ${payload}`);
    client.publish(`im/me/cur/${rest[0]}/${rest[1]}/read/${seq}`, "", { qos: 1 });
    if (payload.toString() === "bye") {
      client.publish("im/svc/sync/counts/q1", "{}", { qos: 1 });
    }
  } else if (tree === "sys" && rest[0] === "receipt" && rest[2] === peer && rest[3] === "read") {
    readUpTo = Math.max(readUpTo, Number(rest[4]));
    lookWhetherAllIsRead();
  } else if (tree === "res" && rest[0] === "q1") {
    console.log(`${rest[1]}: ${JSON.parse(payload).unread_total} unread`);
    client.end();
  }
});
