//! The Elastic Cloud client over HTTP, against fakes that behave as badly as upstream might.

mod keys;
mod mutations;
mod reads;
mod support;
