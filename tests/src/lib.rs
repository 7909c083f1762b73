//! Whole-broker tests with real clients, conformance, durability and house rules.
