//! Tests of the library through its public interface, in one binary.
#![allow(unreachable_pub, reason = "one binary of modules: nothing is public anyway")]

mod advice;
mod audit;
mod audit_log;
mod bounded_loss;
mod conditional;
mod described_metrics;
mod edit_all;
mod edits;
mod game_server;
mod handler_gifts;
mod history;
mod hostile;
mod hosting;
mod in_time;
mod in_turn;
mod inbox;
mod keeper;
mod layers;
mod listing;
mod messages;
mod migrations;
mod named_users;
#[cfg(feature = "nats")]
mod nats;
mod operator;
mod operators_in_trouble;
mod order;
mod orders;
mod own_backend;
#[cfg(feature = "postgres")]
mod postgres;
mod profile_service;
mod races;
mod records;
mod refused_saves;
mod regressions;
mod roblox;
mod runtime_gone;
mod search;
mod seats;
mod sessions;
mod sqlite;
mod standing;
mod storable;
mod testing;
mod transactions;
mod transfer;
mod typed_edits;
mod world;
