"""Other servers on the same checkpoint and the same requests, each started by a script of its own."""
