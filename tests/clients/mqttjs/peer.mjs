// One MQTT.js client that does what it is told on standard input and says what happens.
//
// The first argument is a JSON object: url, version (4 or 5), authority (file or null), client_id,
// clean, will_topic and will_payload (or null). HOOPOE_NODE_MODULES says where MQTT.js is.
//
// Commands and answers are lines of fields separated by tabs:
//     subscribe TOPIC QOS             subscribed QOS
//     publish TOPIC QOS RETAIN TEXT   published
//     leave                           left
// In between come `connected SESSION_PRESENT` once and `message TOPIC QOS RETAIN TEXT`.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.env.HOOPOE_NODE_MODULES}/peer.js`);
const mqtt = require("mqtt");

const SESSION_EXPIRY_SECS = 3600;

function say(...fields) {
  process.stdout.write(`${fields.join("\t")}\n`);
}

function fail(error) {
  process.stderr.write(`${error}\n`);
  process.exit(1);
}

const asked = JSON.parse(process.argv[2]);
const options = {
  protocolVersion: asked.version,
  clientId: asked.client_id,
  clean: asked.clean,
  reconnectPeriod: 0,
  resubscribe: false,
};
if (asked.version === 5 && !asked.clean) {
  options.properties = { sessionExpiryInterval: SESSION_EXPIRY_SECS };
}
if (asked.will_topic) {
  options.will = { topic: asked.will_topic, payload: asked.will_payload, qos: 1 };
}
if (asked.authority) {
  options.ca = [readFileSync(asked.authority)];
}

const client = mqtt.connect(asked.url, options);
client.on("error", fail);
client.on("connect", (connack) => say("connected", Number(connack.sessionPresent)));
client.on("message", (topic, payload, packet) => {
  say("message", topic, packet.qos, Number(packet.retain), payload.toString());
});

createInterface({ input: process.stdin }).on("line", (line) => {
  const [verb, ...fields] = line.split("\t");
  if (verb === "subscribe") {
    const [topic, qos] = fields;
    client.subscribe(topic, { qos: Number(qos) }, (error, granted) => {
      if (error) fail(error);
      say("subscribed", granted[0].qos);
    });
  } else if (verb === "publish") {
    const [topic, qos, retain, text] = fields;
    client.publish(topic, text, { qos: Number(qos), retain: retain === "1" }, (error) => {
      if (error) fail(error);
      say("published");
    });
  } else if (verb === "leave") {
    client.end(false, {}, () => {
      say("left");
      process.exit(0);
    });
  }
});
