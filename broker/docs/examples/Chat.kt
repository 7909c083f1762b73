// Messages to another user: Hoopoe's messaging profile over MQTT 5 with the HiveMQ MQTT Client
// (com.hivemq:hivemq-mqtt-client:1.3). On Android this belongs into a foreground service.

import com.hivemq.client.mqtt.MqttGlobalPublishFilter
import com.hivemq.client.mqtt.datatypes.MqttQos
import com.hivemq.client.mqtt.mqtt5.Mqtt5Client
import com.hivemq.client.mqtt.mqtt5.message.publish.Mqtt5Publish
import com.hivemq.client.mqtt.mqtt5.message.publish.Mqtt5PublishResult
import java.util.UUID

class Chat(host: String, port: Int, user: String, token: String) {
    private val client = Mqtt5Client.builder()
        .identifier("android-" + UUID.randomUUID())   // keep it: it names this device
        .serverHost(host)
        .serverPort(port)
        .simpleAuth().username(user).password(token.toByteArray()).applySimpleAuth()
        .automaticReconnectWithDefaultConfig()
        .buildAsync()

    fun start() {
        // Before the CONNECT, so that nothing of the inbox is missed. No SUBSCRIBE is needed.
        client.publishes(MqttGlobalPublishFilter.ALL) { received(it) }
        client.connectWith().cleanStart(false).sessionExpiryInterval(24 * 3600).send().join()
    }

    /** Sends; the seq is there when the message is on the broker's disk. */
    fun send(peer: String, text: String, cid: String = UUID.randomUUID().toString()): Long {
        val result = client.publishWith()
            .topic("im/u/$peer/msg/$cid")
            .qos(MqttQos.AT_LEAST_ONCE)
            .payload(text.toByteArray())
            .send()
            .join()   // throws Mqtt5PubAckException when the broker refuses
        val ack = (result as Mqtt5PublishResult.Mqtt5Qos1Result).pubAck
        return ack.userProperties.asList().first { it.name.toString() == "im-seq" }
            .value.toString().toLong()
    }

    fun read(conversation: String, seq: Long) {
        client.publishWith().topic("im/me/cur/$conversation/read/$seq")
            .qos(MqttQos.AT_LEAST_ONCE).send()
    }

    private fun received(publish: Mqtt5Publish) {
        val levels = publish.topic.levels
        val text = String(publish.payloadAsBytes)
        val header = publish.userProperties.asList()
            .associate { it.name.toString() to it.value.toString() }
        when {
            levels.size == 5 && levels[2] == "in" && "im-kind" !in header ->
                println("${levels[3]}/${levels[4]} #${header["im-seq"]} ${header["im-from"]}: $text")
            levels[2] == "sys" && levels[3] == "hello" -> println("hello: $text")
            levels[2] == "sys" && levels[3] == "receipt" ->
                println("${levels[8]} has ${levels[6]} up to #${levels[7]}")
        }
    }
}

fun main() {
    val chat = Chat("localhost", 1883, "alice", "")
    chat.start()
    println("sent #" + chat.send("bob", "hello"))
}
