"""Signed, encrypted, brokerless messaging for blockchain validators on ZeroMQ."""
