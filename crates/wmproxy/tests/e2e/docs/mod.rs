//! The documents: `wmproxy check` takes every config in them, every link leads somewhere, and the guide has every page.

mod configs;
mod links;
mod pages;
