"""One paho-mqtt client that does what it is told on standard input and says what happens.

The first argument is a JSON object: host, port, version (4 or 5), transport (tcp or websockets),
path, authority (file or null), client_id, clean, will_topic and will_payload (or null).

Commands and answers are lines of fields separated by tabs:
    subscribe TOPIC QOS             subscribed QOS
    publish TOPIC QOS RETAIN TEXT   published
    leave                           left
In between come `connected SESSION_PRESENT` once and `message TOPIC QOS RETAIN TEXT`.
"""

import json
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

SESSION_EXPIRY_SECS = 3600
output = threading.Lock()


def say(*fields):
    with output:
        print("\t".join(str(field) for field in fields), flush=True)


def on_connect(client, userdata, flags, reason, properties):
    if reason.is_failure:
        sys.exit(f"CONNECT refused: {reason}")
    say("connected", int(flags.session_present))


def on_subscribe(client, userdata, mid, reasons, properties):
    say("subscribed", reasons[0].value)


def on_publish(client, userdata, mid, reason, properties):
    if reason.is_failure:
        sys.exit(f"PUBLISH refused: {reason}")
    say("published")


def on_message(client, userdata, message):
    text = message.payload.decode()
    say("message", message.topic, message.qos, int(message.retain), text)


def main():
    asked = json.loads(sys.argv[1])
    v5 = asked["version"] == 5
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=asked["client_id"],
        clean_session=None if v5 else asked["clean"],
        protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
        transport=asked["transport"],
        reconnect_on_failure=False,
    )
    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_publish = on_publish
    client.on_message = on_message
    if asked["transport"] == "websockets":
        client.ws_set_options(path=asked["path"])
    if asked["authority"]:
        client.tls_set(ca_certs=asked["authority"])
    if asked["will_topic"]:
        client.will_set(asked["will_topic"], asked["will_payload"], qos=1)
    more = {}
    if v5:
        more["clean_start"] = asked["clean"]
        if not asked["clean"]:
            more["properties"] = Properties(PacketTypes.CONNECT)
            more["properties"].SessionExpiryInterval = SESSION_EXPIRY_SECS
    client.connect(asked["host"], asked["port"], **more)
    client.loop_start()
    for line in sys.stdin:
        verb, *fields = line.rstrip("\n").split("\t")
        if verb == "subscribe":
            client.subscribe(fields[0], qos=int(fields[1]))
        elif verb == "publish":
            topic, qos, retain, text = fields
            client.publish(topic, text, qos=int(qos), retain=retain == "1")
        elif verb == "leave":
            client.disconnect()
            client.loop_stop()
            say("left")
            return


main()
