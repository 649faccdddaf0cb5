//! Who somebody is: SASL (RFC 4422), as server and as client.
