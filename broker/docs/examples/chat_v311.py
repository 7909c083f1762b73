"""Messages to another user and back: Hoopoe's messaging profile over MQTT 3.1.1 with paho-mqtt.

    python chat_v311.py HOST PORT bob alice              waits, and ends when alice says bye
    python chat_v311.py HOST PORT alice bob hello bye    sends, and ends when bob has read all of it

What MQTT 5 has in user properties is in the levels of the topic here.
"""

import json
import os
import sys
import threading
import uuid

import paho.mqtt.client as mqtt

host, port, me, peer, *texts = sys.argv[1:]
finished = threading.Event()
sent_up_to, read_up_to = 0, 0
open_sends = set()


def on_connect(client, userdata, flags, reason, properties):
    if reason.is_failure:
        sys.exit(f"refused: {reason}")


def send_all(client):
    for text in texts:
        # The same id again, over whatever connection, is the same message.
        cid = uuid.uuid4().hex
        open_sends.add(cid)
        client.publish(f"im/u/{peer}/msg/{cid}", text, qos=1)


def look_whether_all_is_read():
    if sent_up_to and not open_sends and read_up_to >= sent_up_to:
        print(f"read #{read_up_to}", flush=True)
        finished.set()


def on_message(client, userdata, message):
    global read_up_to, sent_up_to
    match message.topic.split("/"):
        case ["im", "me", "sys", "hello"]:
            print("ready", flush=True)
            send_all(client)
        case ["im", "me", "in", letter, conversation, seq, sender, ts, message_id]:
            text = message.payload.decode()
            print(f"#{seq} {sender}: {text}", flush=True)
            client.publish(f"im/me/cur/{letter}/{conversation}/read/{seq}", b"", qos=1)
            if text == "bye":
                client.publish("im/svc/sync/counts/q1", b"{}", qos=1)
        case ["im", "me", "in", letter, conversation, seq, sender, ts, message_id, kind, ref]:
            pass  # a recall, an edit, a reaction…: not in this example
        case ["im", "me", "sys", "sent", cid, "u", user, seq, message_id, ts]:
            # On the broker's disk; it comes before the PUBACK.
            open_sends.discard(cid)
            sent_up_to = max(sent_up_to, int(seq))
            print(f"sent #{seq}", flush=True)
            look_whether_all_is_read()
        case ["im", "me", "sys", "err", cid, code]:
            print(f"refused {code}: {message.payload.decode()}", flush=True)
            finished.set()
        case ["im", "me", "sys", "receipt", "u", user, "read", seq, _] if user == peer:
            read_up_to = max(read_up_to, int(seq))
            look_whether_all_is_read()
        case ["im", "me", "res", "q1", status]:
            answer = json.loads(message.payload)
            print(f"{status}: {answer['unread_total']} unread", flush=True)
            finished.set()


client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id="pc-example",
    clean_session=False,
    protocol=mqtt.MQTTv311,
)
client.username_pw_set(me, os.environ.get("CHAT_PASSWORD", ""))
client.on_connect = on_connect
client.on_message = on_message
client.connect(host, int(port))
client.loop_start()
finished.wait()
client.disconnect()
client.loop_stop()
