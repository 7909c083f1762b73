//! Links between brokers: to Debian's mosquitto and between Hoopoes, whole and cut at every step.

mod chaos;
mod mosquitto;
mod operators;
mod peers;
mod proxy;
mod record;
mod retained;
mod rumqttc;
mod sites;
mod standalone;
