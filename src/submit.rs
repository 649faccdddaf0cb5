//! What is done for mail that a person submits (RFC 6409).
