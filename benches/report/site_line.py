#!/usr/bin/env python3
"""What one line between two Hoopoe sites costs: messages per CPU second of both brokers.

    benches/report/site_line.py target/release/hoopoe [--pairs 50] [--messages 400] [--window 16]

Starts the sites `fra` and `ny` on free ports of this machine, joined by one link that `ny` dials.
Users `a0`, `a1`, … live at `fra`, users `s0-ny`, … at `ny`; every pair's home is `fra`, that of its
lexically lower user. Both directions are played after one another, QoS 1 at both ends, `--window`
messages of each sender unacknowledged; every message must arrive once and in order.
Standard library only.
"""

import argparse
import asyncio
import os
import re
import struct
import subprocess
import tempfile
import time

PAYLOAD = b"x" * 100


def text(value):
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def packet(kind, body):
    length, size = bytearray(), len(body)
    while True:
        size, digit = divmod(size, 128)
        length.append(digit | (128 if size else 0))
        if not size:
            return bytes([kind]) + bytes(length) + body


async def read_packet(reader):
    kind = (await reader.readexactly(1))[0]
    size, shift = 0, 0
    while True:
        digit = (await reader.readexactly(1))[0]
        size |= (digit & 127) << shift
        shift += 7
        if digit < 128:
            return kind, await reader.readexactly(size)


class Client:
    """A device of a user, over MQTT 3.1.1: few bytes to read and write in Python."""

    def __init__(self, user):
        self.user, self.acked, self.seqs = user, 0, []
        self.progress = asyncio.Event()

    async def connect(self, port):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        body = text("MQTT") + bytes([4, 0xC2]) + struct.pack(">H", 0)
        self.writer.write(packet(0x10, body + text("d-" + self.user) + text(self.user) + text("x")))
        kind, answer = await read_packet(self.reader)
        assert kind == 0x20 and answer[1] == 0, (self.user, answer)
        self.task = asyncio.create_task(self.read())

    async def read(self):
        while True:
            kind, body = await read_packet(self.reader)
            if kind >> 4 == 4:
                self.acked += 1
            elif kind >> 4 == 3:
                size = struct.unpack(">H", body[:2])[0]
                topic = body[2 : 2 + size].decode()
                if kind & 6:
                    self.writer.write(packet(0x40, body[2 + size : 4 + size]))
                if topic.startswith("im/me/in/"):
                    self.seqs.append(int(topic.split("/")[5]))
            self.progress.set()

    async def until(self, done, what):
        limit = time.monotonic() + 120
        while not done():
            assert time.monotonic() < limit, f"{self.user}: {what}"
            self.progress.clear()
            try:
                await asyncio.wait_for(self.progress.wait(), 1)
            except asyncio.TimeoutError:
                pass

    async def send(self, to, count, window):
        first = self.acked
        for n in range(count):
            await self.until(lambda: first + n - self.acked < window, "no acknowledgement")
            self.writer.write(packet(0x32, text(f"im/u/{to}/msg") + struct.pack(">H", n % 65535 + 1) + PAYLOAD))
        await self.until(lambda: self.acked - first >= count, "not all acknowledged")


class Site:
    def __init__(self, program, folder, name, settings):
        self.name = name
        config = os.path.join(folder, name + ".toml")
        with open(config, "w") as file:
            file.write(settings)
        self.process = subprocess.Popen(
            [program, "serve", "--data", os.path.join(folder, name), "--config", config]
            + ["--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.port = None
        for line in self.process.stdout:
            found = re.search(r"listening on tcp://127\.0\.0\.1:([1-9]\d*)", line)
            self.port = int(found.group(1)) if found else self.port
            if line.strip() == "ready":
                break
        os.set_blocking(self.process.stdout.fileno(), False)

    def cpu_secs(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settings(name, dials=None):
    common = f"""
[im]
sends_per_sec = 1000000
send_burst = 1000000
[im.site]
id = "{name}"
default_home = "fra"
[[im.site.home]]
users = "*-ny"
site = "ny"
"""
    if dials is None:
        return common + '[[im.site.link]]\nsite = "ny"\nuser = "link-ny"\n'
    return common + f"""[[bridge]]
name = "fra"
kind = "hoopoe"
site = "fra"
url = "mqtt://127.0.0.1:{dials}"
username = "link-ny"
password = "x"
"""


async def play(what, sites, senders, receivers, arguments):
    """All senders write to their receivers at once."""
    for receiver in receivers:
        receiver.seqs.clear()
    before, begin = [site.cpu_secs() for site in sites], time.monotonic()
    sends = [
        sender.send(receiver.user, arguments.messages, arguments.window)
        for sender, receiver in zip(senders, receivers)
    ]
    await asyncio.gather(*sends)
    for receiver in receivers:
        await receiver.until(lambda: len(receiver.seqs) >= arguments.messages, "not all arrived")
    secs = time.monotonic() - begin
    spent = [site.cpu_secs() - cpu for site, cpu in zip(sites, before)]
    for receiver in receivers:
        first = receiver.seqs[0]
        assert receiver.seqs == list(range(first, first + arguments.messages)), receiver.user
    count = arguments.messages * len(senders)
    shares = ", ".join(f"{site.name} {cpu:.2f} s" for site, cpu in zip(sites, spent))
    print(f"{what}: {count} messages in {secs:.1f} s; {count / sum(spent):,.0f} per CPU second ({shares})")


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--messages", type=int, default=400)
    parser.add_argument("--window", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fra = Site(arguments.program, folder, "fra", settings("fra"))
        ny = Site(arguments.program, folder, "ny", settings("ny", fra.port))
        try:
            low = [Client(f"a{n}") for n in range(arguments.pairs)]
            high = [Client(f"s{n}-ny") for n in range(arguments.pairs)]
            for client in low:
                await client.connect(fra.port)
            for client in high:
                await client.connect(ny.port)
            # Everybody has said hello once: the line is there, and every conversation.
            warm = argparse.Namespace(messages=5, window=1)
            await play("warming up", [fra, ny], high, low, warm)
            await play("from the other site (ny asks, fra commits)", [fra, ny], high, low, arguments)
            near = [Client(f"b{n}") for n in range(arguments.pairs)]
            for client in near:
                await client.connect(fra.port)
            await play("within one site, to hold it against", [fra], near, low, arguments)
            await play("from the home (fra commits, ny copies)", [fra, ny], low, high, arguments)
        finally:
            for site in (fra, ny):
                site.process.terminate()
            for site in (fra, ny):
                site.process.wait()


asyncio.run(main())
