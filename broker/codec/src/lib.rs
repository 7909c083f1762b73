//! MQTT 3.1.1 and 5.0 packets: strict decoding and encoding, no I/O.
