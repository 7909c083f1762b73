//! Runs made by hand, each with one thing wrong, or with something that looks wrong and is not.

mod ends;
mod story;
mod talk;
