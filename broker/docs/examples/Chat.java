// Messages to another user and back: Hoopoe's messaging profile over MQTT 3.1.1, with nothing but
// the Java 17 library. A program of your own takes an MQTT client instead of `Link` below; what
// matters here are the topics.
//
//     java Chat.java HOST PORT bob alice              waits, and ends when alice says bye
//     java Chat.java HOST PORT alice bob hello bye    sends, and ends when bob has read all of it

import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.Set;
import java.util.UUID;

public class Chat {
    private final Link link;
    private final String peer;
    private final String[] texts;
    private final Set<String> openSends = new HashSet<>();
    private long sentUpTo;
    private long readUpTo;
    private boolean finished;

    Chat(Link link, String peer, String[] texts) {
        this.link = link;
        this.peer = peer;
        this.texts = texts;
    }

    public static void main(String[] arguments) throws IOException {
        String[] texts = java.util.Arrays.copyOfRange(arguments, 4, arguments.length);
        String password = System.getenv().getOrDefault("CHAT_PASSWORD", "");
        try (Socket socket = new Socket(arguments[0], Integer.parseInt(arguments[1]))) {
            // The client id names this device; clean session 0: what comes meanwhile waits for it.
            Link link = new Link(socket, "android-example", arguments[2], password);
            new Chat(link, arguments[3], texts).run();
            link.disconnect();
        }
    }

    private void run() throws IOException {
        while (!finished) {
            Message message = link.next();
            received(message.topic.split("/"), message.payload);
            // Acknowledged when it has been dealt with, not before: it moves `recv`.
            link.acknowledge(message);
        }
    }

    private void received(String[] levels, String text) throws IOException {
        switch (levels[2]) {
            case "in" -> {
                // im/me/in/{u,g,c}/{id}/{seq}/{from}/{ts}/{mid}[/{kind}/{ref}]
                if (levels.length != 9) {
                    return; // a recall, an edit, a reaction…: not in this example
                }
                String seq = levels[5];
                System.out.println("#" + seq + " " + levels[6] + ": " + text);
                link.publish("im/me/cur/" + levels[3] + "/" + levels[4] + "/read/" + seq, "");
                if (text.equals("bye")) {
                    link.publish("im/svc/sync/counts/q1", "{}");
                }
            }
            case "sys" -> told(levels, text);
            case "res" -> {
                String unread = text.replaceAll(".*\"unread_total\":(\\d+).*", "$1");
                System.out.println(levels[4] + ": " + unread + " unread");
                finished = true;
            }
            default -> { }
        }
    }

    private void told(String[] levels, String text) throws IOException {
        switch (levels[3]) {
            case "hello" -> {
                System.out.println("ready");
                for (String say : texts) {
                    // The same id again, over whatever connection, is the same message.
                    String cid = UUID.randomUUID().toString();
                    openSends.add(cid);
                    link.publish("im/u/" + peer + "/msg/" + cid, say);
                }
            }
            case "sent" -> {
                // im/me/sys/sent/{cid}/{u,g,c}/{id}/{seq}/{mid}/{ts}: it is on the broker's disk.
                openSends.remove(levels[4]);
                sentUpTo = Math.max(sentUpTo, Long.parseLong(levels[7]));
                System.out.println("sent #" + levels[7]);
                lookWhetherAllIsRead();
            }
            case "err" -> {
                System.out.println("refused " + levels[5] + ": " + text);
                finished = true;
            }
            case "receipt" -> {
                // im/me/sys/receipt/{u,g,c}/{id}/{recv,read}/{seq}/{user}
                if (levels[6].equals("read") && levels[5].equals(peer)) {
                    readUpTo = Math.max(readUpTo, Long.parseLong(levels[7]));
                    lookWhetherAllIsRead();
                }
            }
            default -> { }
        }
    }

    private void lookWhetherAllIsRead() {
        if (sentUpTo > 0 && openSends.isEmpty() && readUpTo >= sentUpTo && !finished) {
            System.out.println("read #" + readUpTo);
            finished = true;
        }
    }

    private record Message(String topic, String payload, int qos, int id) { }

    /** As much of MQTT 3.1.1 as the example needs. */
    private static final class Link {
        private final DataInputStream in;
        private final DataOutputStream out;
        private int lastId;

        Link(Socket socket, String client, String user, String password) throws IOException {
            in = new DataInputStream(socket.getInputStream());
            out = new DataOutputStream(socket.getOutputStream());
            ByteArrayOutputStream body = new ByteArrayOutputStream();
            DataOutputStream connect = new DataOutputStream(body);
            connect.writeUTF("MQTT");
            connect.writeByte(4);
            connect.writeByte(0xC0); // user name, password, clean session 0
            connect.writeShort(0);
            connect.writeUTF(client);
            connect.writeUTF(user);
            connect.writeUTF(password);
            packet(0x10, body.toByteArray());
            byte[] connack = body(in.readUnsignedByte());
            if (connack[1] != 0) {
                throw new IOException("refused: " + connack[1]);
            }
        }

        void publish(String topic, String payload) throws IOException {
            ByteArrayOutputStream body = new ByteArrayOutputStream();
            DataOutputStream publish = new DataOutputStream(body);
            publish.writeUTF(topic);
            lastId = lastId % 0xFFFF + 1;
            publish.writeShort(lastId);
            publish.write(payload.getBytes(StandardCharsets.UTF_8));
            packet(0x32, body.toByteArray()); // QoS 1
        }

        void acknowledge(Message message) throws IOException {
            if (message.qos == 1) {
                packet(0x40, new byte[] {(byte) (message.id >> 8), (byte) message.id});
            }
        }

        void disconnect() throws IOException {
            packet(0xE0, new byte[0]);
        }

        /** The next PUBLISH; other packets are of no interest here. */
        Message next() throws IOException {
            while (true) {
                int first = in.readUnsignedByte();
                byte[] body = body(first);
                if (first >> 4 != 3) {
                    continue;
                }
                int length = (body[0] & 0xFF) << 8 | body[1] & 0xFF;
                int qos = first >> 1 & 3;
                int at = 2 + length;
                int id = qos == 0 ? 0 : (body[at] & 0xFF) << 8 | body[at + 1] & 0xFF;
                at += qos == 0 ? 0 : 2;
                return new Message(text(body, 2, 2 + length), text(body, at, body.length), qos, id);
            }
        }

        private static String text(byte[] bytes, int from, int to) {
            return new String(bytes, from, to - from, StandardCharsets.UTF_8);
        }

        private byte[] body(int first) throws IOException {
            int length = 0;
            int shift = 0;
            int digit;
            do {
                digit = in.readUnsignedByte();
                length |= (digit & 0x7F) << shift;
                shift += 7;
            } while (digit >= 0x80);
            byte[] body = new byte[length];
            in.readFully(body);
            return body;
        }

        private void packet(int first, byte[] body) throws IOException {
            out.writeByte(first);
            int rest = body.length;
            do {
                out.writeByte(rest >= 0x80 ? rest & 0x7F | 0x80 : rest);
                rest >>= 7;
            } while (rest > 0);
            out.write(body);
            out.flush();
        }
    }
}
