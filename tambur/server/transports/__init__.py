"""How bytes get in and out. No transport imports another."""
