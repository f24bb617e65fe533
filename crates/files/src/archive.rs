//! A directory with all below it as one file: tar and zip, made while they are sent.
