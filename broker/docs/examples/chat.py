"""Messages to another user and back: Hoopoe's messaging profile over MQTT 5 with paho-mqtt.

    python chat.py HOST PORT bob alice              waits, and ends when alice says bye
    python chat.py HOST PORT alice bob hello bye    sends, and ends when bob has read all of it
"""

import json
import os
import sys
import threading
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

host, port, me, peer, *texts = sys.argv[1:]
finished = threading.Event()
sent_up_to, read_up_to = 0, 0
open_sends = set()


def envelope(message):
    """The broker's header of a message: user properties that begin with im-."""
    return dict(message.properties.UserProperty)


def on_connect(client, userdata, flags, reason, properties):
    if reason.is_failure:
        sys.exit(f"refused: {reason}")


def send_all(client):
    for text in texts:
        # The same id again, over whatever connection, is the same message.
        cid = uuid.uuid4().hex
        info = client.publish(f"im/u/{peer}/msg/{cid}", text, qos=1)
        open_sends.add(info.mid)


def on_publish(client, userdata, mid, reason, properties):
    """PUBACK: the message is on the broker's disk; its place in the conversation is in here."""
    global sent_up_to
    if reason.is_failure:
        sys.exit(f"refused: {reason}")
    if mid in open_sends:
        open_sends.remove(mid)
        seq = int(dict(properties.UserProperty)["im-seq"])
        sent_up_to = max(sent_up_to, seq)
        print(f"sent #{seq}", flush=True)
        look_whether_all_is_read()


def look_whether_all_is_read():
    if sent_up_to and not open_sends and read_up_to >= sent_up_to:
        print(f"read #{read_up_to}", flush=True)
        finished.set()


def on_message(client, userdata, message):
    global read_up_to
    levels = message.topic.split("/")
    match levels:
        case ["im", "me", "sys", "hello"]:
            print("ready", flush=True)
            send_all(client)
        case ["im", "me", "in", letter, conversation]:
            header, text = envelope(message), message.payload.decode()
            if "im-kind" in header:
                return  # a recall, an edit, a reaction…: not in this example
            print(f"#{header['im-seq']} {header['im-from']}: {text}", flush=True)
            cursor = f"im/me/cur/{letter}/{conversation}/read/{header['im-seq']}"
            client.publish(cursor, b"", qos=1)
            if text == "bye":
                client.publish("im/svc/sync/counts/q1", b"{}", qos=1)
        case ["im", "me", "sys", "receipt", "u", user, "read", seq, _] if user == peer:
            read_up_to = max(read_up_to, int(seq))
            look_whether_all_is_read()
        case ["im", "me", "res", "q1", status]:
            answer = json.loads(message.payload)
            print(f"{status}: {answer['unread_total']} unread", flush=True)
            finished.set()


client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2, client_id="pc-example", protocol=mqtt.MQTTv5
)
client.username_pw_set(me, os.environ.get("CHAT_PASSWORD", ""))
client.on_connect = on_connect
client.on_publish = on_publish
client.on_message = on_message
# The session lasts a day: what comes meanwhile waits for this device.
session = Properties(PacketTypes.CONNECT)
session.SessionExpiryInterval = 24 * 3600
client.connect(host, int(port), clean_start=False, properties=session)
client.loop_start()
finished.wait()
client.disconnect()
client.loop_stop()
