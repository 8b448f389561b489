"""The protocol: names, messages, tokens and signatures. No module here reads a clock or opens a socket."""
