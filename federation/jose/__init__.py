"""JSON, JWS and JWK (RFC 8259, 7515, 7517), read strictly: what can be read in two ways is refused."""
