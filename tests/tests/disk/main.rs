//! A disk that is full, read-only or failing, and stores whose files were damaged: what the broker
//! does (ruling 12), what it says, and that what was acknowledged is there afterwards.

mod damage;
mod fault;
mod restart;
