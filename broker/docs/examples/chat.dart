// Messages to another user: Hoopoe's messaging profile over MQTT 3.1.1 with mqtt_client 10.

import 'dart:convert';

import 'package:mqtt_client/mqtt_client.dart';
import 'package:mqtt_client/mqtt_server_client.dart';

Future<void> main() async {
  const host = 'localhost', user = 'alice', peer = 'bob', device = 'ios-example';
  final client = MqttServerClient.withPort(host, device, 1883)
    ..setProtocolV311()
    ..keepAlivePeriod = 60
    // No startClean(): the session is kept, and what comes meanwhile waits for this device.
    ..connectionMessage = MqttConnectMessage().withClientIdentifier(device);
  await client.connect(user, '');
  // The inbox is there without it; this library only wants to know which topics it gets.
  client.subscribe('im/me/#', MqttQos.atLeastOnce);
  client.updates!.listen((batch) {
    for (final received in batch) {
      final publish = received.payload as MqttPublishMessage;
      final text = utf8.decode(publish.payload.message);
      // im/me/in/{u,g,c}/{id}/{seq}/{from}/{ts}/{mid}[/{kind}/{ref}]
      final levels = received.topic.split('/');
      if (levels[2] == 'in' && levels.length == 9) {
        final conversation = '${levels[3]}/${levels[4]}', seq = levels[5];
        print('$conversation #$seq ${levels[6]}: $text');
        publishText(client, 'im/me/cur/$conversation/read/$seq', '');
      } else if (levels[2] == 'sys' && levels[3] == 'sent') {
        print('#${levels[7]} is on the disk (${levels[4]})');
      } else if (levels[2] == 'sys' && levels[3] == 'err') {
        print('refused ${levels[5]}: $text');
      }
    }
  });
  final cid = '$device-${DateTime.now().microsecondsSinceEpoch}';
  publishText(client, 'im/u/$peer/msg/$cid', 'hello');
}

void publishText(MqttServerClient client, String topic, String text) {
  final payload = MqttClientPayloadBuilder()..addUTF8String(text);
  client.publishMessage(topic, MqttQos.atLeastOnce, payload.payload!);
}
