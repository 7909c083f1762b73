//! Sans-IO MQTT: ids, the session step, the subscription index, effects.

pub mod index;
