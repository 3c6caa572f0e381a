//! Portcullis: nginx in front of the app, with the tokens checked.
mod body;
mod method;
mod path;
mod reject;
